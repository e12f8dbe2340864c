package evidence

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

// A Ledger is the log as it is looked things up in. Safe for concurrent use.
type Ledger interface {
	// Entry returns the exact bytes of an entry that exists.
	Entry(ctx context.Context, index int64) ([]byte, error)
	// Find returns the newest entries that the filter chooses, newest first.
	Find(ctx context.Context, f ledger.Filter) ([]*ledger.Entry, error)
}

// Kinds of Point.
const (
	PointGateway = "gateway" // it cuts what is open, and says so
	PointServer  = "server"  // somebody else's resource server, which follows what is revoked
	PointSignals = "signals" // a receiver of shared signals
)

// A Receipt says of one revocation what it took and since when each enforcement point
// accepts it no more. It is made of the log's entries, so that whoever has the log can
// make it again; nothing in it has to be believed.
type Receipt struct {
	Index  int64              `json:"index"`
	At     time.Time          `json:"at"` // when it was committed, which is before it was acknowledged
	Entry  ledger.Kind        `json:"entry"`
	Target counterfoil.Target `json:"target"`
	Reason string             `json:"reason,omitzero"`
	Actor  string             `json:"actor,omitzero"`
	Voided counterfoil.Voided `json:"voided"`
	Points []Point            `json:"points"`
}

// A Point is an enforcement point.
type Point struct {
	Name string `json:"name"` // of a server and of a receiver that of its agent, and of a server its instance's after a slash
	Kind string `json:"kind"`

	// Seq is the index of the entry that says that it stopped, and Stopped that entry's
	// time: it stopped no later. Zero while there is no such entry.
	Seq       int64     `json:"seq,omitzero"`
	Stopped   time.Time `json:"stopped,omitzero"`
	LatencyUS int64     `json:"latency_us,omitzero"` // from the revocation to Stopped
	Streams   int       `json:"streams,omitzero"`    // open streams that were cut
}

const (
	// feedTool is what a server's look at what is revoked is called in the ledger.
	feedTool = "counterfoil/revocations"

	// feedSeen is how long before a revocation a server looked at the feed if it follows
	// it: it looks again before anybody would call it stale.
	feedSeen = time.Minute

	// page is how many entries are read at once.
	page = 1000
)

// ReceiptOf makes the receipt of the entry of that index, which takes something away;
// any other is tool_unknown.
func ReceiptOf(ctx context.Context, log Ledger, index int64) (Receipt, error) {
	newest, err := log.Find(ctx, ledger.Filter{Limit: 1})
	switch {
	case err != nil:
		return Receipt{}, err
	case index < 0 || len(newest) == 0 || index > newest[0].Index:
		return Receipt{}, noRevocation(index)
	}
	text, err := log.Entry(ctx, index)
	if err != nil {
		return Receipt{}, err
	}
	e, err := ledger.Parse(text)
	if err != nil {
		return Receipt{}, err
	}
	r, ok := revocationOf(e)
	if !ok {
		return Receipt{}, noRevocation(index)
	}
	s := search{log: log, index: index, at: r.At, end: newest[0].Index + 1}
	for _, find := range []func(context.Context) ([]Point, error){s.gateways, s.servers, s.receivers} {
		points, err := find(ctx)
		if err != nil {
			return Receipt{}, err
		}
		r.Points = append(r.Points, points...)
	}
	return r, nil
}

func noRevocation(index int64) error {
	return counterfoil.Refuse(counterfoil.ToolUnknown, "entry %d is no revocation", index)
}

// takingKinds are the kinds of entry that take something away which a list is about. A
// task that ends does so too, a thousand times a day, and is asked for by its index.
var takingKinds = []ledger.Kind{ledger.Revoked, ledger.AgentSuspended, ledger.AgentOffboarded, ledger.CloneSuspected}

// Revocations returns the newest revocations, newest first and without their points, at
// most limit.
func Revocations(ctx context.Context, log Ledger, limit int) ([]Receipt, error) {
	var out []Receipt
	for _, kind := range takingKinds {
		found, err := log.Find(ctx, ledger.Filter{Kind: kind, Limit: limit})
		if err != nil {
			return nil, err
		}
		for _, e := range found {
			if r, ok := revocationOf(e); ok {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b Receipt) int { return cmp.Compare(b.Index, a.Index) })
	return out[:min(len(out), max(0, limit))], nil
}

// revocationOf reads what an entry took, and from whom; ok is false for one that took
// nothing.
func revocationOf(e *ledger.Entry) (r Receipt, ok bool) {
	at, err := e.When()
	if err != nil {
		return r, false
	}
	r = Receipt{Index: e.Index, At: at, Entry: e.Kind, Reason: e.Reason, Actor: e.Actor, Voided: voidedOf(e)}
	of := func(kind counterfoil.TargetKind, id string) counterfoil.Target {
		return counterfoil.Target{Kind: kind, ID: id}
	}
	switch e.Kind {
	case ledger.Revoked:
		kind, _ := e.Detail["kind"].(string)
		id, _ := e.Detail["id"].(string)
		r.Target = of(counterfoil.TargetKind(kind), id)
	case ledger.AgentSuspended, ledger.AgentOffboarded:
		r.Target = of(counterfoil.TargetAgent, e.Agent)
	case ledger.CloneSuspected:
		if e.Detail["clones"] == counterfoil.ClonesQuarantine {
			r.Target = of(counterfoil.TargetInstance, e.Instance)
		}
	case ledger.TaskClosed:
		r.Target = of(counterfoil.TargetTask, e.Task)
	case ledger.KeyRotated:
		r.Target = of(counterfoil.TargetKey, endedKey(e, at))
	}
	return r, slices.Contains(counterfoil.TargetKinds(), r.Target.Kind) && r.Target.ID != ""
}

// endedKey is the key that a rotation ended at once; empty where that one is taken for
// some time still, which its end is an entry of its own of.
func endedKey(e *ledger.Entry, at time.Time) string {
	previous, _ := e.Detail["previous"].(map[string]any)
	jkt, _ := previous["jkt"].(string)
	text, _ := previous["until"].(string)
	until, err := ledger.ParseTime(text)
	if err != nil || until.After(at) {
		return ""
	}
	return jkt
}

func voidedOf(e *ledger.Entry) counterfoil.Voided {
	codes, _ := e.Detail["codes"].(float64)
	v := counterfoil.Voided{
		Agents: texts(e, "agents"), Instances: texts(e, "instances"), Keys: texts(e, "keys"), Tokens: texts(e, "tokens"),
		Tasks: texts(e, "tasks"), Approvals: texts(e, "approvals"), Passkeys: texts(e, "passkeys"), Codes: int(codes),
		Grants: texts(e, "grants"), Credentials: texts(e, "credentials"),
	}
	switch e.Kind {
	case ledger.Revoked, ledger.AgentSuspended, ledger.AgentOffboarded:
		v.Epoch = e.Epoch // of other kinds it is that of who acted
	}
	return v
}

func texts(e *ledger.Entry, name string) (out []string) {
	list, _ := e.Detail[name].([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// A search looks for what was said of one revocation.
type search struct {
	log   Ledger
	index int64
	at    time.Time
	end   int64 // of the log, as far as it is looked at
}

// point is a point that an entry speaks for.
func (s *search) point(name, kind string, e *ledger.Entry) Point {
	p := Point{Name: name, Kind: kind}
	if e == nil {
		return p
	}
	when, err := e.When()
	if err != nil {
		return p
	}
	p.Seq, p.Stopped, p.LatencyUS = e.Index, when, when.Sub(s.at).Microseconds()
	return p
}

// afterwards calls each with the entries after the revocation that the filter chooses,
// the newest first of every part that is read, until wanted says that there is nothing
// more to be had from what is newer. It reads a little at first, as what is looked for
// comes soon after if it comes.
func (s *search) afterwards(ctx context.Context, f ledger.Filter, each func(*ledger.Entry), wanted func() bool) error {
	f.Since, f.Limit = s.at, page
	low := s.index + 1
	for size := int64(4096); low < s.end; size *= 16 {
		high := min(low+size, s.end)
		for f.Before = high; ; {
			found, err := s.log.Find(ctx, f)
			if err != nil {
				return err
			}
			for _, e := range found {
				if e.Index >= low {
					each(e)
				}
			}
			if len(found) < page || found[len(found)-1].Index <= low {
				break
			}
			f.Before = found[len(found)-1].Index
		}
		if !wanted() {
			return nil
		}
		low = high
	}
	return nil
}

// before calls each with the entries before the revocation that the filter chooses,
// newest first, until it returns false.
func (s *search) before(ctx context.Context, f ledger.Filter, each func(*ledger.Entry) bool) error {
	f.Limit = page
	for f.Before = s.index; f.Before > 0; {
		found, err := s.log.Find(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range found {
			if !each(e) {
				return nil
			}
		}
		if len(found) < page {
			return nil
		}
		f.Before = found[len(found)-1].Index
	}
	return nil
}

// enough reports whether an entry says that everything up to the revocation is in force.
func (s *search) enough(e *ledger.Entry) bool { return e.View.Seq >= s.index }

// gateways finds the gateway. What it has open does not outlive its process, and what is
// revoked is there before it takes anything: a start says as much as it does.
func (s *search) gateways(ctx context.Context) ([]Point, error) {
	var said *ledger.Entry
	keep := func(e *ledger.Entry) {
		if said == nil || e.Index < said.Index {
			said = e
		}
	}
	err := s.afterwards(ctx, ledger.Filter{Kind: ledger.RevocationEnforced}, func(e *ledger.Entry) {
		if name, _ := e.Detail["point"].(string); s.enough(e) && name == PointGateway {
			keep(e)
		}
	}, func() bool { return said == nil })
	if err != nil {
		return nil, err
	}
	if said != nil {
		s.end = min(s.end, said.Index+1) // nothing after it is earlier
	}
	err = s.afterwards(ctx, ledger.Filter{Kind: ledger.ServerStarted}, keep, func() bool { return true })
	if err != nil {
		return nil, err
	}
	p := s.point(PointGateway, PointGateway, said)
	if said != nil {
		streams, _ := said.Detail["streams"].(float64)
		p.Streams = int(streams)
	}
	return []Point{p}, nil
}

// servers finds the resource servers that follow what is revoked: those that did shortly
// before, and those that have it, each instance by itself. A look says what whoever looks
// had already.
func (s *search) servers(ctx context.Context) ([]Point, error) {
	said := map[string]*ledger.Entry{}
	f := ledger.Filter{Kind: ledger.CallDecided, Tool: feedTool, Since: s.at.Add(-feedSeen)}
	err := s.before(ctx, f, func(e *ledger.Entry) bool {
		if e.Decision == ledger.Allow {
			said[e.Agent+"/"+e.Instance] = nil
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	err = s.afterwards(ctx, f, func(e *ledger.Entry) {
		name := e.Agent + "/" + e.Instance
		if e.Decision == ledger.Allow && s.enough(e) && (said[name] == nil || e.Index < said[name].Index) {
			said[name] = e
		}
	}, func() bool { return missing(said) })
	return s.points(PointServer, said), err
}

// receivers finds the receivers of shared signals that there were: those whose stream was
// enabled, and those that have it.
func (s *search) receivers(ctx context.Context) ([]Point, error) {
	said, seen := map[string]*ledger.Entry{}, map[string]bool{}
	err := s.before(ctx, ledger.Filter{Kind: ledger.StreamChanged}, func(e *ledger.Entry) bool {
		change, _ := e.Detail["change"].(string)
		status, _ := e.Detail["status"].(string)
		if !seen[e.Agent] && change != "deleted" && counterfoil.StreamStatus(status) == counterfoil.StreamEnabled {
			said[e.Agent] = nil
		}
		seen[e.Agent] = true // an agent has one stream, and the newest word on it counts
		return true
	})
	if err != nil {
		return nil, err
	}
	err = s.afterwards(ctx, ledger.Filter{Kind: ledger.SignalDelivered}, func(e *ledger.Entry) {
		if s.enough(e) && (said[e.Agent] == nil || e.Index < said[e.Agent].Index) {
			said[e.Agent] = e
		}
	}, func() bool { return missing(said) })
	return s.points(PointSignals, said), err
}

// missing reports whether somebody is known who has not said anything.
func missing(said map[string]*ledger.Entry) bool {
	for _, e := range said {
		if e == nil {
			return true
		}
	}
	return false
}

func (s *search) points(kind string, said map[string]*ledger.Entry) []Point {
	out := make([]Point, 0, len(said))
	for name, e := range said {
		out = append(out, s.point(name, kind, e))
	}
	slices.SortFunc(out, func(a, b Point) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
