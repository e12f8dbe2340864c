package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestAKindThatIsNoneIsSaid: whatever flags of the one that was meant are with it, and
// with where the help is.
func TestAKindThatIsNoneIsSaid(t *testing.T) {
	t.Parallel()
	const kinds = "the kinds are token, key, instance, task, agent, person, resource and owner"
	secret := strings.Repeat("s3cret", 6)
	for _, tc := range []struct {
		args []string
		want []string
		not  string
	}{
		{[]string{"revoke", "frob", "x", "--reason", "y"}, []string{`"frob"`, kinds, "'counterfoil revoke --help'"}, "did you mean"},
		{[]string{"revoke", "payroll", "--reason", "x"}, []string{`"payroll"`, kinds, "counterfoil revoke agent payroll"}, "did you mean"},
		{[]string{"revoke", "--reason", "x", "payroll"}, []string{`"payroll"`, kinds}, "unknown flag"},
		{[]string{"revoke", "agents", "payroll", "--reason", "x"}, []string{kinds, "did you mean 'counterfoil revoke agent'?"}, "unknown flag"},
		{[]string{"revoke", "people", "bo", "--reason", "x"}, []string{kinds, "did you mean 'counterfoil revoke person'?"}, ""},
		{[]string{"revoke", "bank", "--wait", "1s"}, []string{kinds}, "did you mean"},
		{[]string{"revoke", secret, "--reason", "x"}, []string{"that is not what", kinds}, secret},
		{[]string{"revoke"}, []string{kinds, "'counterfoil revoke --help'"}, ""},
		{[]string{"revoke", "agent", "--reason", "x"}, []string{"'counterfoil revoke agent --help'"}, ""},
		{[]string{"revoke", "agent", "payroll"}, []string{`"reason" not set`, "'counterfoil revoke agent --help'"}, ""},
		{[]string{"revoke", "agent", "payroll", "--why", "x"}, []string{"unknown flag: --why", "'counterfoil revoke agent --help'"}, ""},
		{[]string{"agent", "suspent", "payroll", "--reason", "x"}, []string{"did you mean 'counterfoil agent suspend'?", "'counterfoil agent --help'"}, "unknown flag"},
		{[]string{"no-such-command"}, []string{"'counterfoil --help'"}, ""},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), tc.args, streams{strings.NewReader(""), &out, &errs})
		if code != exitUsage || out.Len() > 0 || tc.not != "" && strings.Contains(errs.String(), tc.not) {
			t.Errorf("%v: %d %s%s", tc.args, code, &out, &errs)
		}
		for _, want := range tc.want {
			if !strings.Contains(errs.String(), want) {
				t.Errorf("%v: it does not say %s: %s", tc.args, want, &errs)
			}
		}
	}
}

// TestOnlyCodedErrorsHaveACode: a code is a server's word, or that of a check. What goes
// wrong before anybody is asked is no fault of a server's.
func TestOnlyCodedErrorsHaveACode(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"agent", "list", "--json", "--data", t.TempDir()}, streams{strings.NewReader(""), &out, &errs})
	if s := errs.String(); code != exitFailed || !strings.HasPrefix(s, `{"error":{"detail":"no server runs on `) {
		t.Errorf("%d %s", code, s)
	}
	for text, body := range map[string]string{
		`{"error":{"code":"tool_unknown","detail":"no"}}` + "\n": `{"code":"tool_unknown","detail":"no"}`,
		`"code":"internal"`: `{"code":"internal","detail":"no","request_id":"req_1"}`,
	} {
		a := answering(t, 500, body)
		errs.Reset()
		if code := run(t.Context(), []string{"agent", "list", "--json", "--data", a.data}, streams{strings.NewReader(""), &out, &errs}); code != exitFailed || !strings.Contains(errs.String(), text) {
			t.Errorf("%d %s", code, &errs)
		}
	}
}
