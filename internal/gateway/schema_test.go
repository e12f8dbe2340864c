package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestArgumentsFitTheInputSchema(t *testing.T) {
	t.Parallel()
	const (
		flat   = `{"properties":{"amount":{"type":"number"},"to":{"type":"string"}},"required":["amount"],"type":"object"}`
		nested = `{"properties":{"payee":{"properties":{"iban":{"type":"string"}},"type":"object"}},"type":"object"}`
		list   = `{"properties":{"lines":{"items":{"properties":{"amount":{"type":"number"}},"type":"object"},"type":"array"}},"type":"object"}`
		byRef  = `{"$defs":{"Payee":{"properties":{"iban":{"type":"string"}},"type":"object"}},` +
			`"properties":{"payee":{"anyOf":[{"$ref":"#/$defs/Payee"},{"type":"null"}]}},"type":"object"}`
		all   = `{"allOf":[{"properties":{"amount":{"type":"number"}}},{"properties":{"to":{"type":"string"}}}],"type":"object"}`
		seven = `{"$schema":"http://json-schema.org/draft-07/schema#","properties":{"amount":{"type":"number"}},"type":"object"}`
		cycle = `{"$defs":{"Node":{"properties":{"next":{"$ref":"#/$defs/Node"}},"type":"object"}},"$ref":"#/$defs/Node"}`
	)
	for _, tt := range []struct {
		name, schema, good, bad, says string
	}{
		{"another name for the amount", flat, `{"amount":1,"to":"acme"}`, `{"amount":1,"amt":9000}`, "a member that it does not have"},
		{"another case", flat, `{"amount":1}`, `{"Amount":9000,"amount":1}`, "a member that it does not have"},
		{"a member is missing", flat, `{"amount":1}`, `{"to":"acme"}`, "a member is missing"},
		{"another kind", flat, `{"amount":1}`, `{"amount":"1"}`, "/properties/amount"},
		{"JSON within a string", nested, `{"payee":{"iban":"x"}}`, `{"payee":"{\"iban\":\"x\"}"}`, "/properties/payee"},
		{"deeper", nested, `{"payee":{"iban":"x"}}`, `{"payee":{"iban":"x","IBAN":"y"}}`, "at /properties/payee there is a member"},
		{"in a list", list, `{"lines":[{"amount":1}]}`, `{"lines":[{"amount":1},{"amt":1}]}`, "a member that it does not have"},
		{"by reference", byRef, `{"payee":{"iban":"x"}}`, `{"payee":{"iban":"x","other":"y"}}`, "a member that it does not have"},
		{"by reference, null", byRef, `{"payee":null}`, `{"payee":null,"payer":null}`, "a member that it does not have"},
		{"a composition", all, `{"amount":1,"to":"acme"}`, `{"amount":1,"amt":2,"to":"acme"}`, "a member that it does not have"},
		{"draft 7", seven, `{"amount":1}`, `{"amount":1,"amt":2}`, "a member that it does not have"},
		{"a circle", cycle, `{"next":{"next":{}}}`, `{"next":{"text":1}}`, "a member that it does not have"},
		{"what the schema leaves open stays open", `{"properties":{"amount":{}},"additionalProperties":{"type":"string"}}`, `{"amount":1,"note":"x"}`, `{"amount":1,"note":2}`, "see /additionalProperties"},
		{"a map", `{"properties":{"labels":{"type":"object"}},"type":"object"}`, `{"labels":{"any":"thing"}}`, `{"labels":[]}`, "/properties/labels"},
		{"any object", `{"type":"object"}`, `{"any":"thing"}`, `[]`, "of another kind"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &inputSchema{text: []byte(tt.schema)}
			if err := s.check("pay", []byte(tt.good)); err != nil {
				t.Errorf("%s is refused: %v", tt.good, err)
			}
			err := s.check("pay", []byte(tt.bad))
			if counterfoil.CodeOf(err) != counterfoil.PayloadMalformed || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v, want payload_malformed and %q", tt.bad, err, tt.says)
			}
		})
	}
}

// What an agent sent is not repeated: the text of a refusal is recorded, and the
// payload may be of a class of which nothing is kept.
func TestAMisfitDoesNotRepeatTheArguments(t *testing.T) {
	t.Parallel()
	s := &inputSchema{text: []byte(`{"properties":{"a":{"enum":["x"]},"b":{"maxLength":3,"type":"string"},"c":{"additionalProperties":false,"type":"object"}},"type":"object"}`)}
	for _, args := range []string{
		`{"a":"canary"}`, `{"b":"canary"}`, `{"canary":1}`, `{"b":{"canary":1}}`, `{"c":{"canary":1}}`,
		`{"a":"validating /canary: x"}`, `{"b":"validating /canary: x"}`, `{"validating /canary: x":1}`,
	} {
		err := s.check("pay", []byte(args))
		if counterfoil.CodeOf(err) != counterfoil.PayloadMalformed || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestASchemaThatCannotBeUsedRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `7`, `{"type":7}`, `{"properties":{"a":{"pattern":"(?=x)"}}}`, `{"$ref":"https://example.com/schema.json"}`,
		`{"$ref":"#/$defs/missing"}`, `{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"not":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}`, unfolding(30),
		`{"$dynamicRef":"#"}`, `{"properties":{"a":{"$id":"https://example.com/a"}}}`, `{"$schema":"https://json-schema.org/draft/2019-09/schema"}`, `{"$ref":"#"}`,
	} {
		s := &inputSchema{}
		if text != "" {
			s.text = []byte(text)
		}
		if err := s.check("pay", []byte(`{"a":"x"}`)); err == nil {
			t.Errorf("%q: anything goes", text)
		} else if counterfoil.CodeOf(err) != counterfoil.PolicyForbids {
			t.Errorf("%q: %v", text, err)
		}
	}
	d := &Definition{input: &inputSchema{text: []byte(`{"type":"object"}`)}}
	if why := d.Unusable(); why != "" {
		t.Errorf("a schema that can be used: %s", why)
	}
	d.input = &inputSchema{}
	if d.Unusable() == "" {
		t.Error("no schema at all is of no use, and nobody is told")
	}
}

// unfolding returns a small schema that holds one value against 2^n others.
func unfolding(n int) string {
	var b strings.Builder
	b.WriteString(`{"$defs":{"d0":{"type":"object"}`)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, `,"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i-1, i-1)
	}
	fmt.Fprintf(&b, `},"$ref":"#/$defs/d%d"}`, n)
	return b.String()
}

func TestWhatOneCallCanAskForIsBounded(t *testing.T) {
	t.Parallel()
	s := &inputSchema{text: []byte(unfolding(5))} // 2^6 schemas and as many references
	if err := s.check("pay", []byte(`{"list":[1,2,3]}`)); err != nil {
		t.Fatal(err)
	}
	many := `{"list":[1` + strings.Repeat(",1", maxChecks/64) + `]}`
	if err := s.check("pay", []byte(many)); counterfoil.CodeOf(err) != counterfoil.PayloadMalformed || !strings.Contains(err.Error(), "too many values") {
		t.Errorf("%v", err)
	}
}

// FuzzInputSchema holds against whatever an upstream and an agent may write:
// nothing panics, and what is refused is a decided no.
func FuzzInputSchema(f *testing.F) {
	f.Add([]byte(`{"properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"properties":{"c":{"pattern":"^x"}}}}}`), []byte(`{"a":{"c":"x"}}`))
	f.Add([]byte(`{"$ref":"#"}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, schema, arguments []byte) {
		_, d, err := readDefinition(append(append([]byte(`{"name":"x","inputSchema":`), schema...), '}'))
		if err != nil {
			return
		}
		if err := d.input.check("x", arguments); err != nil {
			if _, ok := counterfoil.AsRefusal(err); !ok {
				t.Errorf("%v is no refusal", err)
			}
		}
	})
}
