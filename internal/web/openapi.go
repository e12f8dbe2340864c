package web

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/jsonschema-go/jsonschema"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/approval"
)

// The OpenAPI document is written from the operations; it holds nothing that they
// do not say. It describes what is taken, and reads nothing: what a request may say
// is decided by the one strict reader (docs/decisions/0009-management-api.md).
type (
	apiDocument struct {
		OpenAPI    string                             `json:"openapi"`
		Info       apiInfo                            `json:"info"`
		Servers    []apiServer                        `json:"servers"`
		Paths      map[string]map[string]apiOperation `json:"paths"`
		Components apiComponents                      `json:"components"`
	}
	apiInfo struct {
		Title       string `json:"title"`
		Version     string `json:"version"`
		Description string `json:"description"`
	}
	apiServer struct {
		URL string `json:"url"`
	}
	apiOperation struct {
		ID         string                 `json:"operationId"`
		Summary    string                 `json:"summary"`
		For        string                 `json:"x-counterfoil-for"` // admin, reader (admin or auditor), person or anyone
		Security   []map[string][]string  `json:"security"`
		Parameters []apiParameter         `json:"parameters,omitzero"`
		Body       *apiBody               `json:"requestBody,omitzero"`
		Responses  map[string]apiResponse `json:"responses"`
	}
	apiParameter struct {
		Name     string    `json:"name"`
		In       string    `json:"in"`
		About    string    `json:"description,omitzero"`
		Required bool      `json:"required,omitzero"`
		Schema   apiSchema `json:"schema"`
	}
	apiBody struct {
		Required bool                `json:"required"`
		Content  map[string]apiMedia `json:"content"`
	}
	apiResponse struct {
		About   string              `json:"description"`
		Content map[string]apiMedia `json:"content,omitzero"`
	}
	apiMedia struct {
		Schema apiSchema `json:"schema"`
	}
	apiSchema struct {
		Ref    string             `json:"$ref,omitzero"`
		Type   string             `json:"type,omitzero"`
		Enum   []string           `json:"enum,omitzero"`
		Inline *jsonschema.Schema `json:"-"`
	}
	apiComponents struct {
		Schemas  map[string]*jsonschema.Schema `json:"schemas"`
		Security map[string]apiCookie          `json:"securitySchemes"`
	}
	apiCookie struct {
		Type  string `json:"type"`
		In    string `json:"in"`
		Name  string `json:"name"`
		About string `json:"description"`
	}
)

// A describer makes the document.
type describer struct{ schemas map[string]*jsonschema.Schema }

// describe writes the document of the operations at an address.
func describe(all []operation, url, cookie string) ([]byte, error) {
	d := &describer{map[string]*jsonschema.Schema{}}
	doc := apiDocument{
		OpenAPI: "3.1.0",
		Info: apiInfo{
			"Counterfoil management", "1",
			"What the console speaks. Nothing here approves but a person's passkey over an approval's own challenge, and nothing here creates, widens or restores authority.",
		},
		Servers: []apiServer{{url}}, Paths: map[string]map[string]apiOperation{},
		Components: apiComponents{d.schemas, map[string]apiCookie{"session": {
			"apiKey", "cookie", cookie, "made by a login with a passkey",
		}}},
	}
	if _, err := d.schema(reflect.TypeFor[problem](), false); err != nil {
		return nil, err
	}
	for i := range all {
		o, err := d.operation(&all[i])
		if err != nil {
			return nil, fmt.Errorf("describing %s %s: %w", all[i].method, all[i].path, err)
		}
		if doc.Paths[all[i].path] == nil {
			doc.Paths[all[i].path] = map[string]apiOperation{}
		}
		doc.Paths[all[i].path][strings.ToLower(all[i].method)] = o
	}
	return json.Marshal(doc, json.Deterministic(true), jsontext.WithIndent("  "))
}

func (d *describer) operation(o *operation) (apiOperation, error) {
	out := apiOperation{
		ID: operationID(o), Summary: o.summary, For: o.who.String(), Security: []map[string][]string{},
		Responses: map[string]apiResponse{},
	}
	if o.who != forAnyone {
		out.Security = append(out.Security, map[string][]string{"session": {}})
	}
	for _, name := range pathNames(o.path) {
		out.Parameters = append(out.Parameters, apiParameter{Name: name, In: "path", Required: true, Schema: apiSchema{Type: "string"}})
	}
	for _, q := range o.query {
		out.Parameters = append(out.Parameters, apiParameter{Name: q.name, In: "query", About: q.about, Schema: apiSchema{Type: "string", Enum: q.values}})
	}
	if o.in != reflect.TypeFor[none]() {
		s, err := d.schema(o.in, true)
		if err != nil {
			return out, err
		}
		out.Body = &apiBody{o.in.NumField() > 0, map[string]apiMedia{"application/json": {s}}}
	}
	done := apiResponse{About: http.StatusText(o.status)}
	if o.status != http.StatusNoContent {
		s, err := d.schema(o.out, false)
		if err != nil {
			return out, err
		}
		done.Content = map[string]apiMedia{"application/json": {s}}
	}
	out.Responses[strconv.Itoa(o.status)] = done
	for status, codes := range o.refusals() {
		out.Responses[strconv.Itoa(status)] = apiResponse{
			About: strings.Join(codes, ", "), Content: map[string]apiMedia{counterfoil.ProblemMedia: {apiSchema{Ref: schemaRef + "Problem"}}},
		}
	}
	return out, nil
}

// refusals are the codes that an operation refuses with, by status.
func (o *operation) refusals() map[int][]string {
	codes := append([]counterfoil.Code{counterfoil.RequestMalformed, counterfoil.OriginForbidden, counterfoil.MethodForbidden}, o.codes...)
	if o.in != reflect.TypeFor[none]() {
		codes = append(codes, counterfoil.PayloadMalformed, counterfoil.PayloadTooLarge)
	}
	if o.who != forAnyone {
		codes = append(codes, counterfoil.SessionRequired)
	}
	if o.who == forAdmins || o.who == forReaders {
		codes = append(codes, counterfoil.RoleRequired)
	}
	if len(pathNames(o.path)) > 0 {
		codes = append(codes, counterfoil.ToolUnknown)
	}
	if o.limited {
		codes = append(codes, counterfoil.RateLimited)
	}
	codes = append(codes, counterfoil.Internal, counterfoil.LedgerUnavailable, counterfoil.StoreUnavailable)
	byStatus := map[int][]string{}
	for _, c := range codes {
		status := c.Wire().Status
		if c == counterfoil.ApprovalPending || c == counterfoil.TaskClosed {
			status = http.StatusConflict // see overtaken, conflict
		}
		if !slices.Contains(byStatus[status], string(c)) {
			byStatus[status] = append(byStatus[status], string(c))
		}
	}
	return byStatus
}

// operationID is the summary of an operation for programs: its method and path.
func operationID(o *operation) string {
	words := strings.FieldsFunc(strings.TrimPrefix(o.path, apiPath), func(r rune) bool { return !unicode.IsLetter(r) })
	return strings.ToLower(o.method) + "_" + strings.Join(words, "_")
}

func pathNames(path string) []string {
	var names []string
	for segment := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

const schemaRef = "#/components/schemas/"

// schema describes a type under its name, once. What is sent to us is closed; what
// we send may have more members one day.
func (d *describer) schema(t reflect.Type, closed bool) (apiSchema, error) {
	name := t.Name()
	if name == "" {
		name = "Nothing"
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	name = strings.ToUpper(name[:1]) + name[1:]
	ref := apiSchema{Ref: schemaRef + name}
	if d.schemas[name] != nil {
		return ref, nil
	}
	s, err := jsonschema.ForType(t, &jsonschema.ForOptions{TypeSchemas: asText})
	if err != nil {
		return apiSchema{}, err
	}
	mend(s, closed)
	d.schemas[name] = s
	return ref, nil
}

// asText are the types that JSON has in another form than their fields.
var asText = map[reflect.Type]*jsonschema.Schema{
	reflect.TypeFor[jsontext.Value]():       {},
	reflect.TypeFor[time.Time]():            {Type: "string", Format: "date-time"},
	reflect.TypeFor[[]byte]():               {Type: "string", ContentEncoding: "base64"},
	reflect.TypeFor[counterfoil.Tier]():     {Type: "string", Enum: []any{"routine", "guarded", "irreversible", "forbidden"}},
	reflect.TypeFor[counterfoil.Duration](): {Type: "string"},
	reflect.TypeFor[counterfoil.ToolID]():   {Type: "string", Description: "resource/tool"},

	// A tree has trees in it, which is not said in a schema here.
	reflect.TypeFor[approval.Node](): {Type: "object", Description: "a value of the call: name, type, text, children of the same form"},
}

// mend writes what our encoder writes: no null where a list is empty.
func mend(s *jsonschema.Schema, closed bool) {
	if s == nil {
		return
	}
	if len(s.Types) == 2 && s.Types[0] == "null" {
		s.Type, s.Types = s.Types[1], nil
	}
	if s.Properties != nil && !closed {
		s.AdditionalProperties = nil
	}
	for _, p := range s.Properties {
		mend(p, closed)
	}
	mend(s.Items, closed)
	if s.Type == "object" && s.Properties == nil {
		mend(s.AdditionalProperties, closed)
	}
}

// openapi serves the document. It has no secret: what it describes is public.
func (m *management) openapi(context.Context, asked[none]) (jsontext.Value, error) {
	return m.document, nil
}
