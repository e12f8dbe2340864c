package store

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ledger"
)

func suiteCredentials(t *testing.T, s *subject) {
	ctx := t.Context()
	by := func(kind ledger.Kind, actor string) *ledger.Entry { return &ledger.Entry{Kind: kind, Actor: actor} }
	put := func(name, sealed, actor string) error {
		return s.PutCredential(ctx, name, []byte(sealed), by(ledger.CredentialStored, actor))
	}
	want := func(name, sealed string) {
		t.Helper()
		got, err := s.SealedCredential(ctx, name)
		s.wantDone(err)
		if string(got) != sealed || (got == nil) != (sealed == "") {
			t.Errorf("%s is %q, want %q", name, got, sealed)
		}
	}
	list := func(want ...string) {
		t.Helper()
		l, err := s.Credentials(ctx)
		s.wantDone(err)
		var got []string
		for _, c := range l {
			if !c.At.Equal(s.fixture.clock.Now()) {
				t.Errorf("%s was put at %s", c.Name, c.At)
			}
			got = append(got, c.Name+" by "+c.By)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || l == nil {
			t.Errorf("stored are %q, want %q", got, want)
		}
	}
	list()
	want("crm", "")
	s.wantDone(put("crm", "sealed-1", "uid:0"))
	s.wantDone(put("bank", "sealed-2", "uid:0"))
	s.wantDone(put("crm", "sealed-3", "uid:7"))
	for range 2 {
		want("crm", "sealed-3")
		want("bank", "sealed-2")
		list("bank by uid:0", "crm by uid:7")
		s.reopen()
	}
	size := s.Size()
	remove := func() error { return s.DeleteCredential(ctx, "crm", by(ledger.CredentialDeleted, "uid:7")) }
	s.wantDone(remove())
	s.wantRefused(counterfoil.ToolUnknown, remove)
	want("crm", "")
	list("bank by uid:0")
	if got := s.Size() - size; got != 1 {
		t.Errorf("%d entries of one deletion", got)
	}
	// Nothing changes without its own entry.
	size = s.Size()
	for name, err := range map[string]error{
		"another kind": s.PutCredential(ctx, "x", []byte{1}, by(ledger.CredentialDeleted, "")), "no name": put("", "x", ""), "nothing": put("x", "", ""),
		"deleted with another kind": s.DeleteCredential(ctx, "bank", by(ledger.CredentialStored, "")),
	} {
		if err == nil || errors.As(err, new(*counterfoil.Refusal)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Size() != size {
		t.Error("there is an entry of what did not happen")
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if err := put("many", fmt.Sprint("sealed ", i), "uid:0"); err != nil {
				t.Error(err)
			}
			if b, err := s.SealedCredential(ctx, "many"); err != nil || !bytes.HasPrefix(b, []byte("sealed ")) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
	list("bank by uid:0", "many by uid:0")
}
