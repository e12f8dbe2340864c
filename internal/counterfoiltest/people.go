package counterfoiltest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/testkit/passkey"
)

// An Approver is a person with a passkey in software, who speaks to the management
// API as the console's page does. It is for one goroutine at a time.
type Approver struct {
	Name   string
	Device *passkey.Authenticator

	sys    *System
	client *http.Client
}

// Approver enrols a passkey of a person who is declared, with an operator's code,
// and logs in with it.
func (s *System) Approver(name string) *Approver {
	s.T.Helper()
	u, err := url.Parse(s.ManagementURL())
	if err != nil {
		s.T.Fatal(err)
	}
	return s.ApproverWith(name, passkey.New(u.Hostname(), s.ManagementURL()))
}

// ApproverWith is Approver with a device of the test's choice.
func (s *System) ApproverWith(name string, device *passkey.Authenticator) *Approver {
	s.T.Helper()
	p := s.Visitor(name, device)
	if a := p.Enrol(s.PersonCode(name, false)); a.Status != http.StatusCreated {
		s.T.Fatalf("enrolling a passkey of %s: HTTP %d %s", name, a.Status, a.Body)
	}
	p.Login()
	return p
}

// Visitor is somebody with a device and no passkey of this system yet.
func (s *System) Visitor(name string, device *passkey.Authenticator) *Approver {
	s.T.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.T.Fatal(err)
	}
	p := &Approver{Name: name, Device: device, sys: s}
	p.client = &http.Client{Jar: secureHere{jar}, Transport: &http.Transport{DisableKeepAlives: true}}
	return p
}

// secureHere keeps cookies as browsers do, which take a page of this machine's for
// one over TLS: what is set as Secure there is sent there.
type secureHere struct{ *cookiejar.Jar }

// SetCookies keeps cookies.
func (j secureHere) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.Jar.SetCookies(overTLS(u), cookies)
}

// Cookies returns the cookies of an address.
func (j secureHere) Cookies(u *url.URL) []*http.Cookie { return j.Jar.Cookies(overTLS(u)) }

func overTLS(u *url.URL) *url.URL {
	secure := *u
	secure.Scheme = "https"
	return &secure
}

// PersonCode makes a one-time code for a person's passkey.
func (s *System) PersonCode(name string, reset bool) string {
	s.T.Helper()
	var answer struct {
		Code string `json:"code"`
	}
	if err := ijson.UnmarshalLax(s.must(http.MethodPost, "/api/v1/people/"+name+"/enroll-code", map[string]any{"reset": reset}), &answer); err != nil {
		s.T.Fatal(err)
	}
	return answer.Code
}

// A PersonAnswer is what the management API answered.
type PersonAnswer struct {
	Status int
	Body   []byte
	Code   counterfoil.Code // of a refusal; empty when there is none
	State  counterfoil.ApprovalState
}

// Do sends a request as a page of the console does, with the session's cookie.
func (p *Approver) Do(method, path string, in any) PersonAnswer {
	p.sys.T.Helper()
	a, err := p.try(method, path, in)
	if err != nil {
		p.sys.T.Fatalf("%s %s as %s: %v", method, path, p.Name, err)
	}
	return a
}

func (p *Approver) try(method, path string, in any) (PersonAnswer, error) {
	var body io.Reader
	if in != nil {
		b, err := ijson.Marshal(in)
		if err != nil {
			return PersonAnswer{}, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, p.sys.ManagementURL()+path, body)
	if err != nil {
		return PersonAnswer{}, err
	}
	req.Header.Set("Origin", p.sys.ManagementURL())
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return PersonAnswer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return PersonAnswer{}, err
	}
	var told struct {
		Code  counterfoil.Code          `json:"code"`
		State counterfoil.ApprovalState `json:"state"`
	}
	if len(b) > 0 && ijson.UnmarshalLax(b, &told) != nil {
		told.Code = ""
	}
	return PersonAnswer{resp.StatusCode, b, told.Code, told.State}, nil
}

// Cookies returns the cookies that the browser keeps for the console.
func (p *Approver) Cookies() []*http.Cookie {
	u, err := url.Parse(p.sys.ManagementURL())
	if err != nil {
		p.sys.T.Fatal(err)
	}
	return p.client.Jar.Cookies(u)
}

// Enrol enrols a passkey with a code. An answer other than 201 is for the test to
// judge.
func (p *Approver) Enrol(code string, changes ...func(*passkey.Ceremony)) PersonAnswer {
	p.sys.T.Helper()
	o := p.Do(http.MethodPost, "/api/v1/enrolments/options", map[string]any{"code": code})
	if o.Status != http.StatusOK {
		return o
	}
	return p.Do(http.MethodPost, "/api/v1/enrolments", map[string]any{"code": code, "credential": jsontext.Value(p.Device.Create(o.Body, changes...))})
}

// Login begins a session.
func (p *Approver) Login() {
	p.sys.T.Helper()
	if err := p.tryLogin(); err != nil {
		p.sys.T.Fatalf("logging in as %s: %v", p.Name, err)
	}
}

func (p *Approver) tryLogin() error {
	o, err := p.try(http.MethodPost, "/api/v1/sessions/options", map[string]any{})
	if err != nil || o.Status != http.StatusOK {
		return errors.Join(err, errors.New(string(o.Body)))
	}
	a, err := p.try(http.MethodPost, "/api/v1/sessions", map[string]any{"credential": jsontext.Value(p.Device.Get(o.Body))})
	if err != nil || a.Status != http.StatusCreated {
		return errors.Join(err, errors.New(string(a.Body)))
	}
	return nil
}

// Decide signs a decision on an approval as it stands: a fresh challenge, then the
// assertion over it.
func (p *Approver) Decide(id, decision, reason string, changes ...func(*passkey.Ceremony)) PersonAnswer {
	p.sys.T.Helper()
	a, err := p.TryDecide(id, decision, reason, changes...)
	if err != nil {
		p.sys.T.Fatalf("deciding %s as %s: %v", id, p.Name, err)
	}
	return a
}

// TryDecide is Decide for goroutines that may not end the test.
func (p *Approver) TryDecide(id, decision, reason string, changes ...func(*passkey.Ceremony)) (PersonAnswer, error) {
	in := map[string]any{"decision": decision}
	if reason != "" {
		in["reason"] = reason
	}
	path := "/api/v1/approvals/" + id
	o, err := p.try(http.MethodPost, path+"/challenge", in)
	if err != nil || o.Status != http.StatusOK {
		return o, err
	}
	in["credential"] = jsontext.Value(p.Device.Get(o.Body, changes...))
	return p.try(http.MethodPost, path+"/signatures", in)
}

// TryCountersignAll says yes to everything that waits and that the person may sign,
// and returns how many that were. It is for goroutines that may not end the test.
func (p *Approver) TryCountersignAll() (int, error) {
	a, err := p.try(http.MethodGet, "/api/v1/approvals?state=pending", nil)
	if err != nil {
		return 0, err
	}
	var list struct {
		Approvals []struct {
			ID      string `json:"id"`
			MaySign bool   `json:"may_sign"`
		} `json:"approvals"`
	}
	if err := ijson.UnmarshalLax(a.Body, &list); err != nil || a.Status != http.StatusOK {
		return 0, fmt.Errorf("listing what waits: HTTP %d %s (%w)", a.Status, a.Body, err)
	}
	n := 0
	for _, waits := range list.Approvals {
		if !waits.MaySign {
			continue
		}
		a, err := p.TryDecide(waits.ID, counterfoil.DecisionApprove, "")
		switch {
		case err != nil:
			return n, err
		case a.Status == http.StatusOK:
			n++
		case a.Code != counterfoil.ApprovalPending: // overtaken: the next round signs
			return n, fmt.Errorf("signing %s: HTTP %d %s", waits.ID, a.Status, a.Body)
		}
	}
	return n, nil
}

// Countersign says yes and returns the approval's state.
func (p *Approver) Countersign(id string) counterfoil.ApprovalState {
	p.sys.T.Helper()
	return p.must(id, counterfoil.DecisionApprove, "")
}

// Deny says no.
func (p *Approver) Deny(id, reason string) counterfoil.ApprovalState {
	p.sys.T.Helper()
	return p.must(id, counterfoil.DecisionDeny, reason)
}

func (p *Approver) must(id, decision, reason string) counterfoil.ApprovalState {
	p.sys.T.Helper()
	a := p.Decide(id, decision, reason)
	if a.Status != http.StatusOK {
		p.sys.T.Fatalf("%s says %s to %s: HTTP %d %s", p.Name, decision, id, a.Status, a.Body)
	}
	return a.State
}

// Approval returns an approval as the operator sees it.
func (s *System) Approval(id string) ApprovalView {
	s.T.Helper()
	var v ApprovalView
	if err := ijson.UnmarshalLax(s.must(http.MethodGet, "/api/v1/approvals/"+id, nil), &v); err != nil {
		s.T.Fatal(err)
	}
	return v
}

// An ApprovalView is what stories look at in an approval.
type ApprovalView struct {
	ID         string                    `json:"id"`
	State      counterfoil.ApprovalState `json:"state"`
	Digest     string                    `json:"digest"`
	Reason     string                    `json:"reason"`
	Entry      int64                     `json:"entry"`
	Call       jsontext.Value            `json:"call"`
	Candidates []string                  `json:"candidates"`
	Signatures []struct {
		Person   string `json:"person"`
		Decision string `json:"decision"`
	} `json:"signatures"`
}

// Approvals returns the approvals in a state, or all for "".
func (s *System) Approvals(state counterfoil.ApprovalState) []ApprovalView {
	s.T.Helper()
	path := "/api/v1/approvals"
	if state != "" {
		path += "?state=" + string(state)
	}
	var list struct {
		Approvals []ApprovalView `json:"approvals"`
	}
	if err := ijson.UnmarshalLax(s.must(http.MethodGet, path, nil), &list); err != nil {
		s.T.Fatal(err)
	}
	return list.Approvals
}
