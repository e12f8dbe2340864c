package counterfoil

import "fmt"

// A Tier says how much human proof an action needs. The zero Tier is the
// strictest, so a class nobody described does not run.
type Tier uint8

const (
	Forbidden    Tier = iota // never runs
	Irreversible             // two approvers
	Guarded                  // one approver
	Routine                  // none
)

var tierNames = [...]string{"forbidden", "irreversible", "guarded", "routine"}

// String returns the tier's name in manifests and entries.
func (t Tier) String() string {
	if int(t) < len(tierNames) {
		return tierNames[t]
	}
	return "forbidden"
}

// People returns how many distinct people have to say yes. A forbidden action has
// no number that would do: ask for Forbidden first.
func (t Tier) People() int {
	switch t {
	case Routine:
		return 0
	case Guarded:
		return 1
	}
	return 2
}

// ParseTier returns the tier of that name; any other name is an error and the
// zero tier.
func ParseTier(s string) (Tier, error) {
	for i, n := range tierNames {
		if n == s {
			return Tier(i), nil
		}
	}
	return Forbidden, fmt.Errorf("tier %q is none of routine, guarded, irreversible, forbidden", s)
}

// MarshalText writes the tier's name.
func (t Tier) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a tier's name and refuses any other text.
func (t *Tier) UnmarshalText(b []byte) error {
	v, err := ParseTier(string(b))
	if err != nil {
		return err
	}
	*t = v
	return nil
}

// LowestTier returns the least strict tier that a class of this name may have
// without insecure_lower_tier: payouts, key operations and administrative
// changes cannot be undone, a reset credential is a taken account.
func LowestTier(class string) Tier {
	switch class {
	case "payout", "key-operation", "admin-change":
		return Irreversible
	case "credential-reset":
		return Guarded
	}
	return Routine
}
