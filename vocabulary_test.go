package counterfoil

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestZeroTierRefuses(t *testing.T) {
	var zero Tier
	if zero != Forbidden {
		t.Errorf("the zero tier is %v", zero)
	}
	if got := Tier(200).String(); got != "forbidden" {
		t.Errorf("an unknown tier reads %q", got)
	}
	if got, err := ParseTier("lenient"); err == nil || got != Forbidden {
		t.Errorf("ParseTier of nonsense: %v, %v", got, err)
	}
	for tier := Forbidden; tier <= Routine; tier++ {
		if got, err := ParseTier(tier.String()); err != nil || got != tier {
			t.Errorf("ParseTier(%q): %v, %v", tier, got, err)
		}
	}
}

func TestSecretIsUnprintable(t *testing.T) {
	const canary = "canary-5f1c"
	s := NewSecret(canary)
	holder := struct{ S Secret }{s}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "s", s, "holder", holder)
	js, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %v %+v %#v", s, s, s, s, s, s, holder, holder, &holder)
	for _, text := range []string{printed, log.String(), string(js)} {
		if strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
			t.Errorf("the secret shows in %q", text)
		}
	}
	if s.Reveal() != canary {
		t.Errorf("Reveal gives %q", s.Reveal())
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "payroll-2", "0", strings.Repeat("a", 63)} {
		if err := CheckName(good); err != nil {
			t.Errorf("CheckName(%q): %v", good, err)
		}
	}
	for _, bad := range []string{"", "A", "a_b", "a/b", "a.b", "ä", "a\n", "a ", strings.Repeat("a", 64)} {
		if err := CheckName(bad); err == nil {
			t.Errorf("CheckName(%q) passes", bad)
		}
	}
	if id, err := ParseToolID("bank/get_balance"); err != nil || id.String() != "bank/get_balance" {
		t.Errorf("ParseToolID: %v, %v", id, err)
	}
	for _, text := range []string{"bank/get_balance", "bank/*"} {
		var id ToolID
		if err := id.UnmarshalText([]byte(text)); err != nil || id.String() != text {
			t.Errorf("UnmarshalText(%q): %v, %v", text, id, err)
		}
	}
	if err := new(ToolID).UnmarshalText([]byte("Bank/*")); err == nil {
		t.Error("UnmarshalText takes an upper-case resource")
	}
	if err := CheckName("ä"); err == nil || !strings.Contains(err.Error(), `"ä"`) {
		t.Errorf("the character is not named: %v", err)
	}
	for _, bad := range []string{"", "bank", "bank/", "/pay", "bank/pay/x", "bank/p y", "Bank/pay", "bank/*"} {
		if id, err := ParseToolID(bad); err == nil {
			t.Errorf("ParseToolID(%q) passes as %v", bad, id)
		}
	}
}

func TestCodeOf(t *testing.T) {
	cause := errors.New("disk full")
	for _, c := range []struct {
		err  error
		want Code
	}{
		{Refuse(ToolUnknown, "no %s", "such"), ToolUnknown},
		{fmt.Errorf("calling: %w", Refuse(ProofStale, "old")), ProofStale},
		{NewFault(LedgerUnavailable, cause), LedgerUnavailable},
		{fmt.Errorf("appending: %w", NewFault(LedgerUnavailable, cause)), LedgerUnavailable},
		{cause, Internal},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %s, want %s", c.err, got, c.want)
		}
	}
	if r := RefuseAs(ClientRefused, KeyUnknown, "x"); r.Recorded() != KeyUnknown || Refuse(ClientRefused, "x").Recorded() != ClientRefused {
		t.Error("the ledger's code is not the precise one")
	}
	if !errors.Is(NewFault(StoreUnavailable, cause), cause) {
		t.Error("a fault hides its cause from the log")
	}
}

func TestNewIDIsFresh(t *testing.T) {
	a, b := NewID("req_"), NewID("req_")
	if a == b || len(a) != 4+26 || !strings.HasPrefix(a, "req_") {
		t.Errorf("ids %q, %q", a, b)
	}
}
