package console

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTextIsText: whatever an agent writes, on whatever page, becomes text.
func TestTextIsText(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	a := Approval{
		ID: "apr_x", State: "pending", Sentence: Plain(evil), Words: Plain(evil), Does: Plain(evil), Reason: Plain(evil), Target: Plain(evil),
		Agent: evil, Owner: evil, OnBehalf: evil, Asserted: evil, Task: evil, Tool: evil, Audience: evil, Upstream: evil, Digest: evil, CallDigest: evil, Environment: evil,
		Payload:    []Row{{Name: Plain(evil), Type: "text", Value: Plain(evil), Digest: evil, Field: evil}},
		Hidden:     []Hidden{{Place: Plain(evil), Members: 1}},
		Fields:     []Field{{Name: evil, Value: Plain(evil)}, {Name: evil, Value: Plain(strings.Repeat(evil, 20))}},
		Earlier:    &Earlier{ID: evil, Outcome: evil, Differences: []Difference{{Name: Plain(evil), Before: Plain(evil), After: Plain(evil)}}},
		Signatures: []Signature{{Person: evil, Decision: "deny", Reason: Plain(evil), Groups: []string{evil}}},
		MaySign:    true, Seen: true,
	}
	pages := map[string]any{
		"approval": a,
		"inbox":    Inbox{Waiting: []Ask{{ID: evil, Sentence: Plain(evil), Agent: evil, Tool: evil, Class: evil, Tier: evil}}},
		"ledger":   Ledger{Query: Query{Agent: evil, Kind: evil}, Found: []Line{{What: evil, Agent: evil, Tool: evil, Code: evil, Person: evil, Decision: "refuse"}}, Kinds: []string{evil}},
		"entry":    Chain{What: evil, Facts: a.Payload, Steps: []Step{{EntryLink: EntryLink{What: evil, Who: evil, Code: evil}, Text: evil}}},
		"agent": Agent{Name: evil, Status: evil, OpenTasks: []Task{{ID: evil, State: evil, Agent: evil, Opener: evil, Parent: evil, For: Plain(evil), Tools: []string{evil}, Reason: Plain(evil), Limits: []LimitUse{{Field: evil}}}},
			ClosedTasks: []Task{{ID: evil, State: evil, For: Plain(evil), Reason: Plain(evil)}}, Instances: []Instance{{ID: evil, Key: evil, Status: evil, Old: evil}}},
		"void":        Void{Question: evil, Text: evil, Command: evil, Verb: evil, Stays: []string{evil}, Action: evil, Kind: evil, ID: evil, Confirm: evil, Losses: []Loss{{What: evil, Names: []Name{{ID: evil, Text: Plain(evil)}, {ID: evil, URL: evil}}}}},
		"revocation":  Revocation{What: evil, Kind: evil, ID: evil, URL: evil, Who: evil, Reason: Plain(evil), Points: []Point{{Name: evil, What: evil, After: evil}}},
		"revocations": Revocations{All: []RevocationRow{{What: evil, Kind: evil, ID: evil, URL: evil, Who: evil, Reason: Plain(evil), Took: evil}}},
		"resources":   Resources{All: []ResourceRow{{Name: evil, Type: evil, Place: evil, Status: evil, Agents: []string{evil}}}},
		"failure":     Failure{What: evil, Detail: Plain(evil), Code: evil, RequestID: evil, Back: "/"},
		"login":       Login{Next: evil, Command: evil},
	}
	for name, body := range pages {
		html, err := Render(name, Page{Title: evil, Viewer: bo, Now: noon, Body: body})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		page := string(html)
		if !strings.Contains(page, "alert(1)") {
			t.Errorf("%s does not show what was written", name)
		}
		for _, bad := range []string{"<script>alert", "<img"} {
			if strings.Contains(page, bad) {
				t.Errorf("%s has %s", name, bad)
			}
		}
		for _, tag := range regexp.MustCompile(`<[^>]*`).FindAllString(page, -1) {
			if regexp.MustCompile(`\son[a-z]+=|\sstyle=`).MatchString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(tag, `""`)) {
				t.Errorf("%s has the tag %s", name, tag)
			}
		}
	}
}

// TestMarks: a code point that would hide stands there by its number and its name, for
// eyes and for screen readers.
func TestMarks(t *testing.T) {
	html, err := Render("approval", Page{Now: noon, Viewer: bo, Body: Approval{State: "pending", Template: true, Sentence: Text{
		{Text: "pay "}, {Code: "U+202E", Name: "right-to-left override"}, {Text: "раypal", Lookalike: true, Value: true},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<bdi class="text" dir="ltr">pay <span class="point" title="right-to-left override">U&#43;202E<span class="away"> right-to-left override</span></span>`,
		`<span class="alike" title="not what it looks like`,
	} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page has not %s", want)
		}
	}
}

// TestTierIsNeverColourAlone: each tier has its word and a shape, and one that is not
// known looks like the strictest.
func TestTierIsNeverColourAlone(t *testing.T) {
	shapes := map[string]bool{}
	for _, tier := range []string{"routine", "guarded", "irreversible", "forbidden", "", "new"} {
		html, err := Render("approval", Page{Now: noon, Viewer: bo, Body: Approval{State: "pending", Tier: tier}})
		if err != nil {
			t.Fatal(err)
		}
		want := tier
		if tier == "" || tier == "new" {
			want = "forbidden"
		}
		m := regexp.MustCompile(`<span class="tier tier-([a-z]+)"><svg[^>]*>(.+?)</svg>([a-z]+)</span>`).FindStringSubmatch(string(html))
		if m == nil || m[1] != want || m[3] != want {
			t.Errorf("tier %q is shown as %q", tier, m)
			continue
		}
		shapes[m[2]] = true
	}
	if len(shapes) != 4 {
		t.Errorf("there are %d shapes for four tiers", len(shapes))
	}
}

func TestAssetsAreNamedByTheirBytes(t *testing.T) {
	for name, a := range assets {
		got, ok := FindAsset(a.Name)
		if !ok || string(got.Bytes) != string(a.Bytes) || a.Name == name || !regexp.MustCompile(`^[a-z]+\.[0-9a-f]{12}\.(css|js|svg)$`).MatchString(a.Name) {
			t.Errorf("%s is served as %s", name, a.Name)
		}
		if _, ok := FindAsset(name); ok {
			t.Errorf("%s is served without its digest", name)
		}
		if regexp.MustCompile(`https?://(?:[^w]|w[^w])`).MatchString(string(a.Bytes)) {
			t.Errorf("%s names another origin", name)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		d          time.Duration
		ago, until string
	}{
		{0, "just now", "no time left"},
		{9 * time.Second, "just now", "9 s left"},
		{59 * time.Second, "59 s ago", "59 s left"},
		{time.Minute, "1 min ago", "1 min left"},
		{time.Hour - time.Second, "59 min ago", "59 min left"},
		{47 * time.Hour, "47 h ago", "47 h left"},
		{48 * time.Hour, "2 days ago", "2 days left"},
	} {
		if got := when(noon, noon.Add(-tt.d)); got.Text != tt.ago || got.Exact == "" || got.ISO == "" {
			t.Errorf("%s ago is %+v", tt.d, got)
		}
		if got := until(noon, noon.Add(tt.d)); got.Text != tt.until {
			t.Errorf("%s left is %+v", tt.d, got)
		}
	}
	if got := until(noon, noon.Add(-time.Hour)).Text; got != "no time left" {
		t.Errorf("what is over has %s", got)
	}
}

func TestShort(t *testing.T) {
	for id, want := range map[string]string{
		"apr_AAAAAAAAAAAAAAAAAAAAAA": "apr_AAAAAA…", "sha-256:3q2-7wABAgMEBQ": "sha-256:3q2-7w…", "apr_AAAA": "apr_AAAA",
		"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I": "0ZcOCO…", "": "",
		"kPrK_qmxVWaYVA9wwBF6Iuo3": "kPrK_q…",
	} {
		if got := short(id); got != want {
			t.Errorf("%s is shortened to %s", id, got)
		}
	}
	for name, want := range map[string]string{
		"payroll": "payroll", "bank/list_payees": "bank/list_payees", "tok_AAAAAAAAAAAAAAAAAAAAAA": "tok_AAAAAA…",
		"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I": "0ZcOCO…", "a-resource-with-quite-a-long-name/and-a-tool": "a-resource-with-quite-a-long-name/and-a-tool",
	} {
		if got := label(name); got != want {
			t.Errorf("%s is named %s", name, got)
		}
	}
	for n, want := range map[any]string{0: "0", 9999: "9999", 12069: "12\u202f069", int64(1234567): "1\u202f234\u202f567", -12069: "-12\u202f069"} {
		if got := number(n); got != want {
			t.Errorf("%v is written %s", n, got)
		}
	}
}

// TestTimelineHoldsEveryCall: the bars are as many calls as were counted, none leaves
// the drawing, and what is older than it is in no bar.
func TestTimelineHoldsEveryCall(t *testing.T) {
	calls := []Call{
		{noon, "read", "routine", false}, {noon.Add(-time.Minute), "read", "routine", true}, {noon.Add(-time.Hour), "pay", "irreversible", false},
		{noon.Add(-time.Hour), "mail", "routine", false}, {noon.Add(-48 * time.Hour), "read", "routine", false}, {noon.Add(24 * time.Hour), "read", "routine", false},
	}
	tl := NewTimeline(calls, noon, time.Hour, 24, false)
	if tl.Total != 4 || tl.Most != 3 || len(tl.Bars) != 4 {
		t.Errorf("the timeline is %+v", tl)
	}
	looks := map[string]bool{}
	for _, b := range tl.Bars {
		if b.X < 0 || b.Y < 0 || b.X+b.W > tl.Width || b.Y+b.H > tl.Height || b.H < 2 {
			t.Errorf("a bar is at %+v of %d by %d", b, tl.Width, tl.Height)
		}
		looks[b.Look] = true
	}
	for _, want := range []string{"refused", "routine-0", "routine-1", "irreversible-0"} {
		if !looks[want] {
			t.Errorf("nothing looks %s: %v", want, looks)
		}
	}
	if got := tl.Classes[len(tl.Classes)-1].Class; got != "pay" {
		t.Errorf("the strictest class is not on top: %s", got)
	}
	if empty := NewTimeline(nil, noon, time.Hour, 24, false); empty.Total != 0 || len(empty.Bars) != 0 {
		t.Errorf("an empty timeline is %+v", empty)
	}
}
