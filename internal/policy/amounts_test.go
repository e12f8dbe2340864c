package policy

import (
	"maps"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestAmountsAreTheFieldsThatCanBeSummed(t *testing.T) {
	t.Parallel()
	reg := counterfoil.NewRegistry()
	reg.Classes["payout"] = &counterfoil.Class{Name: "payout", Tier: counterfoil.Routine}
	reg.Resources["bank"] = &counterfoil.Resource{Name: "bank", Tools: []counterfoil.Tool{{
		Name: "pay", Class: "payout", Fields: map[string]string{"amount": "/amount", "fee": "/more/0/fee", "to": "/to"},
	}}}
	set, problems := Load(reg)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	pay := counterfoil.ToolID{Resource: "bank", Tool: "pay"}
	for _, tc := range []struct {
		id        counterfoil.ToolID
		arguments string
		want      map[string]int64
	}{
		{pay, `{"amount":12,"more":[{"fee":0.0001}],"to":"x"}`, map[string]int64{"amount": 12_0000, "fee": 1}},
		{pay, `{"amount":0}`, map[string]int64{"amount": 0}},
		{pay, `{"amount":12.5e1}`, map[string]int64{"amount": 125_0000}},
		{pay, `{"amount":922337203685477.5807}`, map[string]int64{"amount": 1<<63 - 1}},
		{pay, `{"amount":922337203685477.5808}`, map[string]int64{}},
		{pay, `{"amount":-1}`, map[string]int64{}},
		{pay, `{"amount":0.00001}`, map[string]int64{}},
		{pay, `{"amount":"12"}`, map[string]int64{}},
		{pay, `{"amount":null,"more":[]}`, map[string]int64{}},
		{pay, `{"Amount":1}`, map[string]int64{}},
		{pay, ``, map[string]int64{}},
		{pay, `{"amount":1,"amount":2}`, nil},
		{pay, `{"amount":1} {}`, nil},
		{pay, `[1]`, nil},
		{counterfoil.ToolID{Resource: "bank", Tool: "other"}, `{"amount":1}`, nil},
		{counterfoil.ToolID{Resource: "other", Tool: "pay"}, `{"amount":1}`, nil},
	} {
		if got := set.Amounts(tc.id, []byte(tc.arguments)); !maps.Equal(got, tc.want) || (got == nil) != (tc.want == nil) {
			t.Errorf("%s of %s are %v, want %v", tc.arguments, tc.id, got, tc.want)
		}
	}
	if got := (*Set)(nil).Amounts(pay, []byte(`{"amount":1}`)); got != nil {
		t.Errorf("without a policy they are %v", got)
	}
}
