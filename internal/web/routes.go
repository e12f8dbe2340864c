package web

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
	"github.com/counterfoil/counterfoil/internal/authority"
)

// An audience says who may use an operation. The zero audience is the smallest.
type audience int

const (
	forAdmins  audience = iota // administrators
	forReaders                 // administrators and auditors
	forPeople                  // whoever is logged in; the engine says what they may see
	forAnyone                  // what logging in needs, and the description of all this
)

var audienceNames = [...]string{"admin", "reader", "person", "anyone"}

func (a audience) String() string { return audienceNames[a] }

// permits refuses whoever the operation is not for.
func (a audience) permits(s session) error {
	switch {
	case a == forAnyone, a == forPeople:
		return nil
	case a == forReaders && s.isReader(), a == forAdmins && s.isAdmin():
		return nil
	case a == forReaders:
		return counterfoil.Refuse(counterfoil.RoleRequired, "this needs the role admin or auditor")
	}
	return counterfoil.Refuse(counterfoil.RoleRequired, "this needs the role admin")
}

// An operation is one row of the management API's table (operations): the router,
// the checks of who may, the readers of query and body, and the OpenAPI document
// are made of it, so that none of them can say something else than the others.
type operation struct {
	method, path string
	who          audience
	summary      string
	query        []parameter        // every name that the query may have
	status       int                // of success
	codes        []counterfoil.Code // refusals beside those that follow from the other columns
	limited      bool               // by the caller's address, as nobody is logged in yet
	in, out      reflect.Type       // none where there is no body
	do           func(*management, *operation, asking) error
}

// A parameter is a name that a query may have, once.
type parameter struct {
	name, about string
	values      []string // nil: any text
}

// An asking is one request for an operation, after all that the table says was
// checked.
type asking struct {
	session session // of nobody where the operation is for anyone
	query   url.Values

	w http.ResponseWriter
	r *http.Request
}

func (a asking) path(name string) string { return a.r.PathValue(name) }

// An asked is an asking with its body.
type asked[In any] struct {
	asking
	in In
}

// op makes a row of a function over typed values.
func op[In, Out any](method, path string, who audience, summary string, do func(*management, context.Context, asked[In]) (Out, error)) operation {
	return operation{
		method: method, path: path, who: who, summary: summary, status: http.StatusOK,
		in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](),
		do: func(m *management, o *operation, a asking) error {
			request := asked[In]{asking: a}
			if err := readInto(a.w, a.r, &request.in); err != nil {
				return err
			}
			out, err := do(m, a.r.Context(), request)
			if err != nil {
				return err
			}
			if o.status == http.StatusNoContent {
				a.w.WriteHeader(o.status)
				return nil
			}
			writeJSON(a.w, o.status, "application/json", out)
			return nil
		},
	}
}

func (o operation) asks(query ...parameter) operation {
	o.query = query
	return o
}

func (o operation) answers(status int) operation {
	o.status = status
	return o
}

func (o operation) refuses(codes ...counterfoil.Code) operation {
	o.codes = codes
	return o
}

// byAddress limits how often one address may ask.
func (o operation) byAddress() operation {
	o.limited = true
	return o
}

// apiPath is where the management API is.
const apiPath = "/api/v1/"

// routes adds the operations, and refuses what is none.
func (m *management) routes(rt *router) {
	for i := range operations {
		o := &operations[i]
		rt.handle(o.method, o.path, m.operate(o))
		// Whoever is not logged in is told nothing but that; only then is a method
		// wrong.
		if o.who != forAnyone {
			rt.otherwise(o.path, m.onlyPeople)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		rt.handle(method, apiPath+"{path...}", func(w http.ResponseWriter, r *http.Request) error {
			if err := m.onlyPeople(w, r); err != nil {
				return err
			}
			return notHere()
		})
	}
}

func (m *management) onlyPeople(_ http.ResponseWriter, r *http.Request) error {
	if err := m.sameOrigin(r); err != nil {
		return err
	}
	_, err := m.session(r)
	return err
}

// operate is the one way to an operation. The order is: what a browser says about
// where the request comes from, the rate, who is logged in, what they may, and only
// then what is asked.
func (m *management) operate(o *operation) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "no-store")
		if err := m.sameOrigin(r); err != nil {
			return err
		}
		if o.limited && !m.addresses.Take(o.path+" "+authority.AddressKey(m.Source(r)), m.Now(), 1) {
			return counterfoil.Refuse(counterfoil.RateLimited, "too many requests from this address")
		}
		var s session
		if o.who != forAnyone {
			var err error
			if s, err = m.session(r); err != nil {
				return err
			}
			if err := o.who.permits(s); err != nil {
				return err
			}
		}
		query, err := o.readQuery(r)
		if err != nil {
			return err
		}
		return o.do(m, o, asking{s, query, w, r})
	}
}

// readQuery reads the query: names that the table has, each once.
func (o *operation) readQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the query string is malformed")
	}
	for name, values := range query {
		i := slices.IndexFunc(o.query, func(p parameter) bool { return p.name == name })
		switch {
		case i < 0:
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "there is no parameter %.40q", name)
		case len(values) != 1:
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "%.40q is there %d times", name, len(values))
		case o.query[i].values != nil && !slices.Contains(o.query[i].values, values[0]):
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "%s is none of %s", name, strings.Join(o.query[i].values, ", "))
		}
	}
	return query, nil
}

// readInto reads the body into v: one object with the members of its type, none of
// them null, so that nothing is left out by pretending to be there. A body that has
// no member to have may be left out.
func readInto[In any](w http.ResponseWriter, r *http.Request, v *In) error {
	if _, bodyless := any(*v).(none); bodyless {
		if r.ContentLength != 0 {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "a %s here has no body", r.Method)
		}
		return nil
	}
	if r.ContentLength == 0 && reflect.TypeFor[In]().NumField() == 0 && len(r.Header.Values("Content-Type")) == 0 {
		return nil
	}
	if err := notOfAForm(r); err != nil {
		return err
	}
	body, err := readBody(w, r, "application/json", maxAsked)
	if err != nil {
		return err
	}
	members, err := ijson.Members(body)
	if err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: %v", err)
	}
	for name, value := range members {
		if value.Kind() == 'n' {
			return counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: %.40q is null; leave it out", name)
		}
	}
	if err := ijson.Unmarshal(body, v); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: %v", err)
	}
	return nil
}

// maxAsked bounds a body, in bytes: the largest holds an attestation.
const maxAsked = 64 << 10

// notOfAForm refuses the media types that a page of any site may send without being
// asked (Fetch, CORS-safelisted request-header). A browser that says nothing else of
// a request's origin says that.
func notOfAForm(r *http.Request) error {
	for _, t := range r.Header.Values("Content-Type") {
		t, _, _ = strings.Cut(t, ";")
		switch strings.ToLower(strings.TrimSpace(t)) {
		case "text/plain", "application/x-www-form-urlencoded", "multipart/form-data":
			return counterfoil.Refuse(counterfoil.OriginForbidden, "a body of this media type may be another site's form; send application/json")
		}
	}
	return nil
}
