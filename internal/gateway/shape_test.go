package gateway

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func TestArgumentsFitTheInputSchema(t *testing.T) {
	t.Parallel()
	const (
		seven  = `"$schema":"http://json-schema.org/draft-07/schema#",`
		flat   = `{"properties":{"amount":{"type":"number"},"to":{"type":"string"}},"required":["amount"],"type":"object"}`
		nested = `{"properties":{"payee":{"properties":{"iban":{"type":"string"}},"type":"object"}},"type":"object"}`
		list   = `{"properties":{"lines":{"items":{"properties":{"amount":{"type":"number"}},"type":"object"},"type":"array"}},"type":"object"}`
		byRef  = `{"$defs":{"Payee":{"properties":{"iban":{"type":"string"}},"type":"object"}},` +
			`"properties":{"payee":{"anyOf":[{"$ref":"#/$defs/Payee"},{"type":"null"}]}},"type":"object"}`
		all   = `{"allOf":[{"properties":{"amount":{"type":"number"}}},{"properties":{"to":{"type":"string"}}}],"type":"object"}`
		cycle = `{"$defs":{"Node":{"properties":{"next":{"$ref":"#/$defs/Node"}},"type":"object"}},"$ref":"#/$defs/Node"}`
		other = "a member that it does not have"
	)
	for _, tt := range []struct {
		name, schema, good, bad, says string
	}{
		{"another name for the amount", flat, `{"amount":1,"to":"acme"}`, `{"amount":1,"amt":9000}`, other},
		{"another case", flat, `{"amount":1}`, `{"Amount":9000,"amount":1}`, other},
		{"a number in a string", flat, `{"amount":19.99}`, `{"amount":"1"}`, `at "/amount"`},
		{"JSON within a string", nested, `{"payee":{"iban":"x"}}`, `{"payee":"{\"iban\":\"x\"}"}`, `at "/payee"`},
		{"deeper", nested, `{"payee":{"iban":"x"}}`, `{"payee":{"IBAN":"y","iban":"x"}}`, `at "/payee/IBAN"`},
		{"in a list", list, `{"lines":[{"amount":1}]}`, `{"lines":[{"amount":1},{"amt":1}]}`, `at "/lines/1/amt"`},
		{"in a tuple", `{"properties":{"pair":{"prefixItems":[{"type":"integer"},{"properties":{"a":{}}}]}}}`, `{"pair":[1,{"a":1}]}`, `{"pair":[1,{"b":1}]}`, other},
		{"by reference", byRef, `{"payee":{"iban":"x"}}`, `{"payee":{"iban":"x","other":"y"}}`, other},
		{"by reference, null", byRef, `{"payee":null}`, `{"payee":7}`, "another kind"},
		{"a composition", all, `{"amount":1,"to":"acme"}`, `{"amount":1,"amt":2,"to":"acme"}`, other},
		{"a circle", cycle, `{"next":{"next":{}}}`, `{"next":{"text":1}}`, other},
		{"an escaped place", `{"properties":{"a/b":{"$ref":"#/$defs/c~1%25"}},"$defs":{"c/%":{"properties":{"d":{}}}}}`, `{"a/b":{"d":1}}`, `{"a/b":{"e":1}}`, other},
		{"no arguments", `{"properties":{},"type":"object"}`, `{}`, `{"any":"thing"}`, other},

		// What a condition says besides opens nothing.
		{"one of two must be there", `{"properties":{"amount":{},"to":{}},"anyOf":[{"type":"object","required":["amount"]},{"required":["to"],"type":"object"}]}`, `{"amount":1}`, `{"amount":1,"amt":2}`, other},
		{"then", `{"properties":{"amount":{}},"if":{"properties":{"amount":{"const":1}}},"then":{"type":"object"},"else":{"properties":{"why":{}}}}`, `{"amount":2,"why":"x"}`, `{"amount":1,"amt":2}`, other},
		{"dependencies", `{"properties":{"amount":{}},"dependencies":{"amount":{"type":"object"},"x":["amount"]}}`, `{"amount":1}`, `{"amount":1,"amt":2}`, other},
		{"dependentSchemas", `{"properties":{"amount":{}},"dependentSchemas":{"amount":{"properties":{"to":{}}}}}`, `{"amount":1,"to":1}`, `{"amount":1,"amt":2}`, other},
		{"not", `{"properties":{"amount":{}},"not":{"properties":{"amt":{}}}}`, `{"amount":1}`, `{"amount":1,"amt":2}`, other},

		{"draft 7", `{` + seven + `"properties":{"amount":{"type":"number"}},"type":"object"}`, `{"amount":1}`, `{"amount":1,"amt":2}`, other},
		{"draft 7, reference", `{` + seven + `"$ref":"#/definitions/pay","definitions":{"pay":{"properties":{"amount":{}}}}}`, `{"amount":1}`, `{"amount":1,"amt":2}`, other},
		{"draft 7, composition", `{` + seven + `"allOf":[{"properties":{"amount":{}}},{"properties":{"to":{}}}]}`, `{"amount":1,"to":2}`, `{"amount":1,"amt":2}`, other},
		{"draft 7, patterns", `{` + seven + `"properties":{"amount":{}},"patternProperties":{"^x-":{"type":"string"}}}`, `{"amount":1,"x-note":"n"}`, `{"amount":1,"amt":2}`, other},
		{"draft 7, tuple", `{` + seven + `"properties":{"pair":{"items":[{"type":"integer"}],"additionalItems":{"type":"string"}}}}`, `{"pair":[1,"a"]}`, `{"pair":[1,2]}`, "another kind"},
		{"draft 7, unnamed tuple", `{"properties":{"pair":{"items":[{"properties":{"a":{}}}]}}}`, `{"pair":[{"a":1}]}`, `{"pair":[{"b":1}]}`, other},
		// What must hold in any case holds, whatever else speaks of the value.
		{"a closed member and a word more on a condition", `{"additionalProperties":false,"properties":{"m":{},"pay":{"additionalProperties":false,"properties":{"amount":{"type":"number"}},"type":"object"}},"if":{"properties":{"m":{"const":"card"}}},"then":{"properties":{"pay":{"description":"x"}}}}`, `{"m":"sepa","pay":{"amount":1}}`, `{"m":"sepa","pay":{"amount":1,"amt":9000}}`, other},
		{"a kind and a word more on a condition", `{"properties":{"amount":{"type":"number"}},"if":{},"then":{"properties":{"amount":{"maximum":5}}}}`, `{"amount":1}`, `{"amount":"1"}`, "another kind"},
		{"two parts speak of one member", `{"allOf":[{"properties":{"payee":{"properties":{"iban":{}},"type":"object"}}},{"properties":{"payee":{"required":["iban"]}}}]}`, `{"payee":{"iban":"x"}}`, `{"payee":{"iban":"x","other":1}}`, other},
		{"two parts, the kind", `{"allOf":[{"properties":{"payee":{"properties":{"iban":{}},"type":"object"}}},{"properties":{"payee":{}}}]}`, `{"payee":{"iban":"x"}}`, `{"payee":"{}"}`, "another kind"},
		{"properties and a pattern", `{"properties":{"pay":{"properties":{"amount":{}},"type":"object"}},"patternProperties":{"^p":{"type":"object"}}}`, `{"pay":{"amount":1}}`, `{"pay":{"amt":1}}`, other},
		{"items and contains", `{"properties":{"l":{"items":{"properties":{"a":{}}},"contains":{"type":"object"}}}}`, `{"l":[{"a":1}]}`, `{"l":[{"b":1}]}`, other},
		{"then others", `{"properties":{"amount":{}},"if":{},"then":{"additionalProperties":true}}`, `{"amount":1}`, `{"amt":1}`, other},
		{"sealed beside a part with others", `{"properties":{"amount":{}},"additionalProperties":false,"allOf":[{"additionalProperties":true}]}`, `{"amount":1}`, `{"amt":1}`, other},
		{"names by propertyNames", `{"propertyNames":{"enum":["amount"]},"additionalProperties":{"type":"number"}}`, `{"amount":1}`, `{"amt":1}`, other},
		{"names by propertyNames alone", `{"propertyNames":{"enum":["amount"]}}`, `{"amount":{"x":1}}`, `{"amt":1}`, other},
		{"kinds by enum", `{"properties":{"a":{"enum":["x",1]}}}`, `{"a":"x"}`, `{"a":{}}`, "another kind"},
		{"a tuple and no more", `{"properties":{"pair":{"prefixItems":[{},{}]}}}`, `{"pair":[1,2]}`, `{"pair":[1,2,3]}`, "an element that it does not have"},
		{"many references", chain(70), `{"x":1}`, `{"x":"1"}`, "another kind"},
		{"a model or, by reference, anything", `{"$defs":{"M":{"properties":{"a":{}}},"Any":{}},"properties":{"x":{"anyOf":[{"$ref":"#/$defs/M"},{"$ref":"#/$defs/Any"}]}}}`, `{"x":{"b":1}}`, `{"y":{"b":1}}`, other},

		{"draft 4", `{"$schema":"http://json-schema.org/draft-04/schema#","properties":{"amount":{}}}`, `{"amount":1}`, `{"amt":2}`, other},

		// What is left open on purpose stays open.
		{"others of a kind", `{"properties":{"amount":{}},"additionalProperties":{"type":"string"}}`, `{"amount":1,"note":"x"}`, `{"amount":1,"note":2}`, "another kind"},
		{"a map", `{"properties":{"labels":{"type":"object"}},"type":"object"}`, `{"labels":{"any":"thing"}}`, `{"labels":[]}`, "another kind"},
		{"any object", `{"type":"object"}`, `{"any":"thing"}`, `[]`, "another kind"},
		{"a model or any object", `{"properties":{"x":{"anyOf":[{"properties":{"a":{}}},{"type":"object"}]}}}`, `{"x":{"b":1}}`, `{"y":{"b":1}}`, other},
		{"a model or anything", `{"properties":{"x":{"anyOf":[{"properties":{"a":{}}},{}]}}}`, `{"x":{"b":1}}`, `{"y":{"b":1}}`, other},
		{"true", `{"properties":{"x":{"anyOf":[{"properties":{"a":{}}},true]}}}`, `{"x":{"b":1}}`, `{"y":{"b":1}}`, other},
		{"closed by its own word", `{"properties":{"x":{"properties":{"a":{}},"additionalProperties":false}}}`, `{"x":{"a":1}}`, `{"x":{"b":1}}`, other},

		// What generators write, and what values are is the upstream's to say.
		{"a decimal of pydantic", `{"properties":{"amount":{"anyOf":[{"type":"number"},{"pattern":"^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$","type":"string"}]}}}`, `{"amount":"12.50"}`, `{"amount":true}`, "another kind"},
		{"cents", `{"properties":{"amount":{"multipleOf":0.01,"type":"number"}}}`, `{"amount":19.99}`, `{"amount":null}`, "another kind"},
		{"a long text", `{"properties":{"note":{"pattern":"^.{1,2048}$","type":"string"}}}`, `{"note":"x"}`, `{"note":["x"]}`, "another kind"},
		{"a name of its own", `{"$id":"schemas/pay","properties":{"amount":{}},"examples":"one"}`, `{"amount":1}`, `{"amt":1}`, other},
		{"an integer", `{"properties":{"n":{"type":"integer"}}}`, `{"n":100}`, `{"n":1.5}`, "another kind"},
		{"several kinds", `{"properties":{"n":{"type":["integer","null"]}}}`, `{"n":null}`, `{"n":"x"}`, "another kind"},
		{"nothing at all", `{"properties":{"n":false}}`, `{}`, `{"n":1}`, "another kind"},
		{"words in another case are none", `{"properties":{"a":{}},"UnevaluatedProperties":true,"AllOf":[{"$Ref":"#"}]}`, `{"a":1}`, `{"b":1}`, other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &inputShape{text: []byte(tt.schema)}
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

// chain returns a schema whose member x is a number, by many references.
func chain(n int) string {
	var b strings.Builder
	b.WriteString(`{"$defs":{"d0":{"type":"number"}`)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, `,"d%d":{"$ref":"#/$defs/d%d"}`, i, i-1)
	}
	fmt.Fprintf(&b, `},"properties":{"x":{"$ref":"#/$defs/d%d"}}}`, n)
	return b.String()
}

// A record of the refusal says nothing of what was sent.
func TestAMisfitDoesNotRecordTheArguments(t *testing.T) {
	t.Parallel()
	s := &inputShape{text: []byte(`{"properties":{"a":{"type":"integer"},"b":{"properties":{},"type":"object"}}}`)}
	for _, args := range []string{`{"a":"canary"}`, `{"canary":1}`, `{"b":{"canary":1}}`, `{"a":{"canary":1}}`, `{"b":{"\"canary\\":1}}`} {
		r, ok := counterfoil.AsRefusal(s.check("pay", []byte(args)))
		if !ok || r.Code != counterfoil.PayloadMalformed || strings.Contains(r.Reason(), "canary") || len(r.Detail) > 400 {
			t.Errorf("%s: %v", args, r)
		}
	}
}

func TestASchemaThatCannotBeUsedRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `7`, `true`, `[]`, `{"type":7}`, `{"type":"nothing"}`, `{"properties":{"a":7}}`, `{"anyOf":[[]]}`,
		`{"type":[]}`, `{"patternProperties":{"(?=x)":{}}}`, `{"patternProperties":{"` + strings.Repeat("x", maxPattern+1) + `":{}}}`,
		`{"properties":{"` + strings.Repeat("x", maxPlace) + `":{"properties":{"a":{}}}}}`,
		`{"properties":{"a":{}},"additionalProperties":null}`, `{"properties":{"a":{}},"additionalProperties":true,"unevaluatedProperties":null}`, `{"properties":null}`, `{"anyOf":null}`, `{"allOf":[]}`, `{"patternProperties":[]}`,
		`{"$ref":"https://example.com/schema.json"}`, `{"$ref":"#/$defs/missing"}`, `{"$ref":"#name"}`, `{"$ref":7}`, `{"$ref":"#/properties/a/type","properties":{"a":{"type":"string"}}}`,
		`{"$dynamicRef":"#"}`, `{"$defs":{"a":{}},"properties":{"a":{"$anchor":"a"}}}`, `{"properties":{"a":{"$id":"https://example.com/a"}}}`,
		`{"allOf":[` + strings.Repeat(`{},`, maxShapes) + `{}]}`,
	} {
		s := &inputShape{text: []byte(text)}
		if err := s.check("pay", []byte(`{"a":"x"}`)); counterfoil.CodeOf(err) != counterfoil.PolicyForbids || len(err.Error()) > 600 {
			t.Errorf("%.100q: %.300v", text, err)
		}
	}
	d := &Definition{input: &inputShape{text: []byte(`{"type":"object"}`)}}
	if why := d.Unusable(); why != "" {
		t.Errorf("a schema that can be used: %s", why)
	}
	d.input = &inputShape{}
	if d.Unusable() == "" {
		t.Error("no schema at all is of no use, and nobody is told")
	}
}

// hostileSchemas are small and unfold beyond measure, or without end, when each
// alternative is tried.
func hostileSchemas() map[string]string {
	unfold := `{"$defs":{"d0":{"type":"object"}`
	for i := 1; i <= 40; i++ {
		unfold += fmt.Sprintf(`,"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]}`, i, i-1, i-1)
	}
	wide := make([]string, 1000)
	for i := range wide {
		wide[i] = fmt.Sprintf(`"p%d":{"$ref":"#/$defs/all"}`, i)
	}
	return map[string]string{
		"itself":           `{"$ref":"#"}`,
		"each other":       `{"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"allOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"}`,
		"unfolding":        unfold + `},"$ref":"#/$defs/d40"}`,
		"wide":             `{"$defs":{"all":{"allOf":[` + strings.Repeat(`{"type":"object"},`, 999) + `{}]}},"properties":{` + strings.Join(wide, ",") + `}}`,
		"a recursive tool": `{"$defs":{"F":{"oneOf":[` + recursive("and") + `,` + recursive("or") + `,` + recursive("not") + `]}},"properties":{"x":{"$ref":"#/$defs/F"}}}`,
		"conditions":       `{"properties":{"x":{"dependentSchemas":{` + strings.Join(conditions(2000), ",") + `}}}}`,
		"many literals":    `{"properties":{"x":{"anyOf":[` + strings.Repeat(`{"const":"a"},`, 400) + `{"const":"b"}]}}}`,
	}
}

func conditions(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`"c%d":{}`, i)
	}
	return all
}

func recursive(op string) string {
	return `{"properties":{"op":{"const":"` + op + `"},"args":{"items":{"$ref":"#/$defs/F"},"type":"array"}},"required":["op"]}`
}

// What one call can make the gateway do is bounded, whatever upstream and agent
// wrote. Its steps are the bound, so they are counted, and not the time.
func TestWhatOneCheckCostsIsBounded(t *testing.T) {
	deep := `{"x":` + strings.Repeat(`{"args":[`, 29) + `{}` + strings.Repeat(`]}`, 29) + `}`
	arguments := map[string]string{
		"deep": deep, "long": `{"x":"` + strings.Repeat("y", 4<<20) + `"}`,
		"many": `{"x":{"args":[{}` + strings.Repeat(",{}", 100_000) + `]}}`,
	}
	for name, text := range hostileSchemas() {
		s, err := readShape([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for what, args := range arguments {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := s.check("pay", []byte(args))
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 256 {
				t.Errorf("%s, %s: %d MiB", name, what, n)
			}
			if err != nil && counterfoil.CodeOf(err) != counterfoil.PayloadMalformed {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	// A name is matched with what it costs.
	s, err := readShape([]byte(`{"patternProperties":{".{900}.{90}c":{}}}`))
	if err != nil {
		t.Fatal(err)
	}
	member := func(n int) string { return `"` + strings.Repeat("a", n) + `%d":1` }
	for _, tt := range []struct {
		members, length int
		want            string
	}{
		{1, 10, otherMember}, {1, maxMatchedName, otherMember}, {200, 1000, tooIntricate},
	} {
		all := make([]string, tt.members)
		for i := range all {
			all[i] = fmt.Sprintf(member(tt.length), i)
		}
		// All of them match, so that all of them are looked at.
		c := shapeCheck{steps: maxSteps}
		object := map[string]any{}
		for i := range all {
			object[strings.Repeat("a", tt.length)+fmt.Sprint(i)+"c"] = 1.0
		}
		if tt.members == 1 {
			if err := s.check("pay", []byte("{"+all[0]+"}")); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("a name of %d bytes: %.300v", tt.length, err)
			}
			continue
		}
		if _, why := c.value(object, []reach{{shape: s}}); why != tt.want {
			t.Errorf("%d names of %d bytes: %q", tt.members, tt.length, why)
		}
	}
	c := shapeCheck{steps: 10}
	s, err = readShape([]byte(`{"properties":{"list":{"items":{"type":"integer"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, why := c.value(map[string]any{"list": []any{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}}, []reach{{shape: s}}); why != tooIntricate {
		t.Errorf("more steps than there are: %q", why)
	}
	c = shapeCheck{steps: 1000}
	if _, why := c.value(map[string]any{"list": []any{1.0, 2.0, 3.0}}, []reach{{shape: s}}); why != "" {
		t.Errorf("the control: %q", why)
	}
}

// FuzzInputSchema holds against whatever an upstream and an agent may write:
// nothing panics or runs away, and what is refused is a decided no.
func FuzzInputSchema(f *testing.F) {
	f.Add([]byte(`{"properties":{"a":{"$ref":"#/$defs/b"}},"$defs":{"b":{"properties":{"c":{"pattern":"^x"}}}}}`), []byte(`{"a":{"c":"x"}}`))
	for _, text := range hostileSchemas() {
		f.Add([]byte(text), []byte(`{"x":{"args":[{"args":[{}]}]}}`))
	}
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
