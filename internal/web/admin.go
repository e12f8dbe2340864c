package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/authority"
	"github.com/counterfoil/counterfoil/internal/manifest"
	"github.com/counterfoil/counterfoil/ledger"
)

// admin is the API of the administration socket. There is no login: whoever can
// open the socket is an administrator, and the kernel says who.
type admin struct{ Config }

// A call is one typed request to the administration API.
type call[In any] struct {
	actor string // who asks, such as uid:0
	in    In     // the body
	path  func(name string) string
	query url.Values
}

// none is the body of a call that has none.
type none struct{}

// typed adapts a function over typed values to a handler: it names the actor,
// reads the body strictly, and writes the result. A call without a body counts
// as one of an empty object.
func typed[In, Out any](m *admin, do func(context.Context, call[In]) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		c := call[In]{actor: m.Actor(r.Context()), path: r.PathValue}
		if c.actor == "" {
			return counterfoil.Refuse(counterfoil.RoleRequired, "the system does not say who is at the other end of the socket")
		}
		var err error
		if c.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
			return counterfoil.Refuse(counterfoil.RequestMalformed, "the query string is malformed")
		}
		if _, bodyless := any(c.in).(none); !bodyless && r.ContentLength != 0 {
			if err := readJSON(w, r, maxManage, &c.in); err != nil {
				return err
			}
		}
		out, err := do(r.Context(), c)
		if err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, "application/json", out)
		return nil
	}
}

func newAdmin(cfg Config, a *answers) http.Handler {
	m := &admin{cfg}
	rt := &router{answers: a, gate: m.gate, unrecorded: cfg.Authority.Refused}
	rt.handle(http.MethodPost, "/api/v1/apply", typed(m, m.apply))
	rt.handle(http.MethodGet, "/api/v1/status", typed(m, m.status))
	rt.handle(http.MethodPost, "/api/v1/keys/rotate", typed(m, m.rotate))
	rt.handle(http.MethodGet, "/api/v1/ledger/entries", typed(m, m.entries))
	rt.handle(http.MethodGet, "/api/v1/ledger/entries/{index}", typed(m, m.entry))
	rt.handle(http.MethodGet, "/api/v1/ledger/receipts/{index}", typed(m, m.receipt))
	rt.handle(http.MethodGet, "/api/v1/ledger/export", m.export)
	rt.handle(http.MethodPost, "/api/v1/agents/{name}/suspend", typed(m, m.suspend))
	rt.handle(http.MethodPost, "/api/v1/agents/{name}/resume", typed(m, m.resume))
	rt.handle(http.MethodPost, "/api/v1/agents/{name}/offboard", typed(m, m.offboard))
	rt.handle(http.MethodPost, "/api/v1/agents/{name}/enroll-code", typed(m, m.enrollCode))
	rt.handle(http.MethodGet, "/api/v1/agents/{name}/instances", typed(m, m.instances))
	rt.handle(http.MethodGet, "/api/v1/approvals", typed(m, m.listApprovals))
	rt.handle(http.MethodGet, "/api/v1/approvals/{id}", typed(m, m.getApproval))
	rt.handle(http.MethodPost, "/api/v1/people/{name}/enroll-code", typed(m, m.personCode))
	rt.handle(http.MethodGet, "/api/v1/changes", typed(m, m.listChanges))
	rt.handle(http.MethodDelete, "/api/v1/changes/{id}", typed(m, m.withdrawChange))
	m.revokeRoutes(rt)
	rt.handle(http.MethodGet, apiPath+"bearer", typed(m, m.bearer))
	m.credentialRoutes(rt)
	rt.handle(http.MethodGet, "/api/v1/{kind}", typed(m, m.list))
	rt.handle(http.MethodGet, "/api/v1/{kind}/{name}", typed(m, m.get))
	rt.handle(http.MethodDelete, "/api/v1/{kind}/{name}", typed(m, m.remove))
	return rt
}

// gate refuses everything that a browser had a hand in: none opens a unix
// socket, so something passes its requests on.
func (m *admin) gate(_ http.ResponseWriter, r *http.Request) error {
	if len(r.Header.Values("Origin")) > 0 || len(r.Header.Values("Sec-Fetch-Site")) > 0 {
		return counterfoil.Refuse(counterfoil.OriginForbidden, "the administration socket takes no request from a web page")
	}
	return nil
}

// kindOf maps the plural in a path to the kind of a document.
func kindOf(plural string) (string, error) {
	kind, ok := map[string]string{
		"people": counterfoil.KindPerson, "classes": counterfoil.KindClass, "resources": counterfoil.KindResource,
		"agents": counterfoil.KindAgent, "policies": counterfoil.KindPolicy, "transmitters": counterfoil.KindTransmitter,
		"vocabularies": counterfoil.KindVocabulary,
	}[plural]
	if !ok {
		return "", counterfoil.Refuse(counterfoil.ToolUnknown, "there is nothing at this path; documents are people, classes, resources, agents, policies, transmitters and vocabularies")
	}
	return kind, nil
}

type applyBody struct {
	Files  []applyFile `json:"files"`
	DryRun bool        `json:"dry_run"`
}

type applyFile struct {
	Name string `json:"name"`
	Data string `json:"data"`
}

// apply refuses manifests that have problems, with all of them: nothing was
// done.
func (m *admin) apply(ctx context.Context, c call[applyBody]) (applied, error) {
	req := authority.ApplyRequest{Actor: c.actor, DryRun: c.in.DryRun}
	for _, f := range c.in.Files {
		req.Files = append(req.Files, manifest.File{Name: f.Name, Data: []byte(f.Data)})
	}
	result, err := m.Authority.Apply(ctx, req)
	if err == nil && len(result.Problems) > 0 {
		return applied{}, unapplied{result}
	}
	if err != nil {
		return applied{}, err
	}
	return m.withCodes(ctx, result, c.actor, c.in.DryRun), nil
}

// unapplied is the refusal of manifests, with what is wrong with them.
type unapplied struct{ authority.ApplyResult }

// Error returns the refusal's text.
func (u unapplied) Error() string { return u.Unwrap().Error() }

// Unwrap returns the refusal without what is wrong.
func (u unapplied) Unwrap() error {
	if n := len(u.Problems); n > 1 {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the manifests have %d problems; nothing was applied", n)
	}
	return counterfoil.Refuse(counterfoil.PayloadMalformed, "the manifests have a problem; nothing was applied")
}

// A document is one document as it is shown.
type document struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Document any    `json:"document"`
	Manifest string `json:"manifest"` // the same in YAML, as apply takes it

	Status counterfoil.Status `json:"status,omitzero"` // of agents and resources, and of people in lists

	// Of agents only.
	Epoch     int64 `json:"epoch,omitzero"`
	Instances int   `json:"instances,omitzero"` // live ones

	Quarantined []string `json:"quarantined,omitzero"` // ids of instances whose key was seen in two places

	// Of people only, in lists.
	Passkeys int `json:"passkeys,omitzero"` // that count
}

type documents struct {
	Documents []document `json:"documents"`
}

func (m *admin) list(ctx context.Context, c call[none]) (documents, error) {
	kind, err := kindOf(c.path("kind"))
	if err != nil {
		return documents{}, err
	}
	nouns, err := m.Authority.List(kind)
	if err != nil {
		return documents{}, err
	}
	out := documents{Documents: []document{}}
	for _, noun := range nouns {
		d, err := m.show(kind, noun)
		if err != nil {
			return documents{}, err
		}
		out.Documents = append(out.Documents, d)
	}
	if kind == counterfoil.KindPerson {
		return out, m.countPasskeys(ctx, out.Documents)
	}
	return out, nil
}

func (m *admin) get(_ context.Context, c call[none]) (document, error) {
	kind, err := kindOf(c.path("kind"))
	if err != nil {
		return document{}, err
	}
	noun, err := m.Authority.Get(kind, c.path("name"))
	if err != nil {
		return document{}, err
	}
	return m.show(kind, noun)
}

func (m *admin) show(kind string, noun any) (document, error) {
	text, err := manifest.Format(noun)
	if err != nil {
		return document{}, err
	}
	d := document{Kind: kind, Document: noun, Manifest: string(text)}
	switch noun := noun.(type) {
	case *counterfoil.Person:
		d.Name = noun.Name
	case *counterfoil.Class:
		d.Name = noun.Name
	case *counterfoil.Resource:
		d.Name = noun.Name
		d.Status, _ = m.Approvals.ResourceStatus(noun.Name)
	case *counterfoil.Policy:
		d.Name = noun.Name
	case *counterfoil.Transmitter:
		d.Name = noun.Name
	case *counterfoil.Vocabulary:
		d.Name = noun.Name
	case *counterfoil.Agent:
		view, err := m.Authority.Agent(noun.Name)
		if err != nil {
			return document{}, err
		}
		d.Name, d.Status, d.Epoch, d.Instances, d.Quarantined = noun.Name, view.Status, view.Epoch, view.Instances, view.Quarantined
	}
	return d, nil
}

// voided is what an agent lost: what counterfoil.Voided says, with the lists that every
// agent has even where they are empty.
type voided struct {
	Epoch     int64    `json:"epoch"`     // tokens of older epochs are void
	Instances []string `json:"instances"` // ids
	Keys      []string `json:"keys"`      // thumbprints

	Tokens      []string `json:"tokens,omitzero"` // ids of those that had not expired
	Tasks       []string `json:"tasks,omitzero"`
	Approvals   []string `json:"approvals,omitzero"`
	Codes       int      `json:"codes,omitzero"`
	Grants      []string `json:"grants,omitzero"`
	Credentials []string `json:"credentials,omitzero"` // of the upstreams that it called; they stay
}

func newVoided(v counterfoil.Voided) voided {
	out := voided{v.Epoch, v.Instances, v.Keys, v.Tokens, v.Tasks, v.Approvals, v.Codes, v.Grants, v.Credentials}
	if out.Instances == nil {
		out.Instances = []string{}
	}
	if out.Keys == nil {
		out.Keys = []string{}
	}
	return out
}

type deleted struct {
	Kind   string  `json:"kind"`
	Name   string  `json:"name"`
	Voided *voided `json:"voided,omitzero"` // of an agent

	Proposal *authority.Proposal `json:"proposal,omitzero"` // what it waits for; nothing was done yet
}

func (m *admin) remove(ctx context.Context, c call[none]) (deleted, error) {
	kind, err := kindOf(c.path("kind"))
	if err != nil {
		return deleted{}, err
	}
	v, err := m.Authority.Delete(ctx, kind, c.path("name"), c.actor)
	if err != nil {
		return deleted{}, err
	}
	out := deleted{Kind: kind, Name: c.path("name"), Proposal: v.Proposal}
	if kind == counterfoil.KindAgent {
		lost := newVoided(v.Voided)
		out.Voided = &lost
	}
	return out, nil
}

type reasonBody struct {
	Reason string `json:"reason"`
}

// suspended is an agent, with what it lost.
type suspended struct {
	document
	Voided voided `json:"voided"`
}

func (m *admin) suspend(ctx context.Context, c call[reasonBody]) (suspended, error) {
	v, err := m.Authority.Suspend(ctx, c.path("name"), c.in.Reason, c.actor)
	if err != nil {
		return suspended{}, err
	}
	doc, err := m.agent(c.path("name"))
	return suspended{doc, newVoided(v)}, err
}

type resumeBody struct {
	Reason  string   `json:"reason"`
	Release []string `json:"release"` // ids of quarantined instances; others stay so
}

// resumed is an agent, with the instances that are quarantined still, and those that
// were released.
type resumed struct {
	document
	Released []string `json:"released"` // ids
}

func (m *admin) resume(ctx context.Context, c call[resumeBody]) (resumed, error) {
	released, err := m.Authority.Resume(ctx, c.path("name"), c.in.Release, c.in.Reason, c.actor)
	if err != nil {
		return resumed{}, err
	}
	doc, err := m.agent(c.path("name"))
	return resumed{doc, released}, err
}

func (m *admin) agent(name string) (document, error) {
	noun, err := m.Authority.Get(counterfoil.KindAgent, name)
	if err != nil {
		return document{}, err
	}
	return m.show(counterfoil.KindAgent, noun)
}

func (m *admin) offboard(ctx context.Context, c call[reasonBody]) (deleted, error) {
	v, err := m.Authority.Offboard(ctx, c.path("name"), c.in.Reason, c.actor)
	if err != nil {
		return deleted{}, err
	}
	lost := newVoided(v)
	return deleted{Kind: counterfoil.KindAgent, Name: c.path("name"), Voided: &lost}, nil
}

type enrolCode struct {
	Agent     string    `json:"agent"`
	Code      string    `json:"code"` // this answer is the one time that anyone sees it
	ExpiresAt time.Time `json:"expires_at"`
}

func (m *admin) enrollCode(ctx context.Context, c call[struct{}]) (enrolCode, error) {
	code, expires, err := m.Authority.EnrolCode(ctx, c.path("name"), c.actor)
	if err != nil {
		return enrolCode{}, err
	}
	return enrolCode{c.path("name"), code.Reveal(), expires.UTC()}, nil
}

type instance struct {
	ID       string             `json:"id"`
	JKT      string             `json:"jkt"`
	Alg      string             `json:"alg"`
	Status   counterfoil.Status `json:"status"`
	Enrolled time.Time          `json:"enrolled"`
	Old      *oldKey            `json:"old,omitzero"` // the key that it had before, while both are taken
}

type oldKey struct {
	JKT   string    `json:"jkt"`
	Until time.Time `json:"until"`
}

type instances struct {
	Agent     string     `json:"agent"`
	Instances []instance `json:"instances"`
}

func (m *admin) instances(_ context.Context, c call[none]) (instances, error) {
	all, err := m.Authority.Instances(c.path("name"))
	if err != nil {
		return instances{}, err
	}
	return instances{Agent: c.path("name"), Instances: newInstances(all)}, nil
}

func newInstances(all []counterfoil.Instance) []instance {
	out := []instance{}
	for _, inst := range all {
		i := instance{ID: inst.ID, JKT: inst.JKT, Alg: inst.Alg, Status: inst.Status, Enrolled: inst.Enrolled.UTC()}
		if inst.Old != nil {
			i.Old = &oldKey{inst.Old.JKT, inst.Old.Until.UTC()}
		}
		out = append(out, i)
	}
	return out
}

type status struct {
	Issuer  string       `json:"issuer"`
	Ready   bool         `json:"ready"`
	Reasons []string     `json:"reasons,omitzero"`
	Agents  int          `json:"agents"`
	Ledger  ledgerStatus `json:"ledger"`
	Keys    []signingKey `json:"keys"`
}

type ledgerStatus struct {
	Size int64  `json:"size"`
	Root string `json:"root"`
}

func (m *admin) status(context.Context, call[none]) (status, error) {
	reasons := m.Ready()
	size, root := m.Entries.Head()
	return status{
		Issuer: m.Issuer, Ready: len(reasons) == 0, Reasons: reasons, Agents: len(m.Authority.Agents()),
		Ledger: ledgerStatus{size, root}, Keys: m.signingKeys().Keys,
	}, nil
}

type found struct {
	Size    int64            `json:"size"` // of the log
	Entries []jsontext.Value `json:"entries"`
}

// maxFound bounds how many entries one answer has.
const maxFound = 1000

// entries answers with the newest entries that a filter chooses, newest first,
// or, asked for those from an index on, with them in order, for whoever follows
// the log.
func (m *admin) entries(ctx context.Context, c call[none]) (found, error) {
	f, from, err := parseFilter(c.query)
	if err != nil {
		return found{}, err
	}
	size, _ := m.Entries.Head()
	out := found{Size: size, Entries: []jsontext.Value{}}
	if from >= 0 {
		err := m.Entries.Range(ctx, from, min(size, from+int64(f.Limit)), func(entry []byte) error {
			out.Entries = append(out.Entries, jsontext.Value(entry).Clone())
			return nil
		})
		return out, err
	}
	entries, err := m.Entries.Find(ctx, f)
	if err != nil {
		return found{}, err
	}
	for _, e := range entries {
		b, err := ledger.Encode(e)
		if err != nil {
			return found{}, err
		}
		out.Entries = append(out.Entries, b)
	}
	return out, nil
}

// parseFilter reads a filter, or the index to go on from; -1 when there is none.
func parseFilter(query url.Values) (f ledger.Filter, from int64, err error) {
	f, from = ledger.Filter{Limit: 100}, -1
	refuse := func(format string, args ...any) (ledger.Filter, int64, error) {
		return ledger.Filter{}, -1, counterfoil.Refuse(counterfoil.RequestMalformed, format, args...)
	}
	for name, values := range query {
		if len(values) != 1 {
			return refuse("%.40q is there %d times", name, len(values))
		}
		v := values[0]
		switch name {
		case "agent":
			f.Agent = v
		case "actor":
			f.Actor = v
		case "class":
			f.Class = v
		case "approval":
			f.Approval = v
		case "token":
			f.Token = v
		case "kind":
			f.Kind = ledger.Kind(v)
		case "tool":
			f.Tool = v
		case "code":
			f.Code = counterfoil.Code(v)
		case "request_id":
			f.RequestID = v
		case "since":
			if f.Since, err = time.Parse(time.RFC3339, v); err != nil {
				return refuse("since is not a time such as 2006-01-02T15:04:05Z")
			}
		case "from", "limit":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return refuse("%s is not a number", name)
			}
			if name == "from" {
				from = n
			} else {
				f.Limit = int(min(max(n, 1), maxFound))
			}
		default:
			return refuse("there is no filter %.40q", name)
		}
	}
	if from >= 0 && f != (ledger.Filter{Limit: f.Limit}) {
		return refuse("from goes with limit alone")
	}
	return f, from, nil
}

// index returns the index in the path, of an entry that exists.
func (m *admin) index(c call[none]) (int64, error) {
	n, err := strconv.ParseInt(c.path("index"), 10, 64)
	if size, _ := m.Entries.Head(); err != nil || n < 0 || n >= size {
		return 0, counterfoil.Refuse(counterfoil.ToolUnknown, "the log has no entry %.40q", c.path("index"))
	}
	return n, nil
}

func (m *admin) entry(ctx context.Context, c call[none]) (jsontext.Value, error) {
	i, err := m.index(c)
	if err != nil {
		return nil, err
	}
	return m.Entries.Entry(ctx, i)
}

func (m *admin) receipt(ctx context.Context, c call[none]) (ledger.Receipt, error) {
	i, err := m.index(c)
	if err != nil {
		return ledger.Receipt{}, err
	}
	return m.Entries.Receipt(ctx, i)
}

// export streams the log; verify says too where it is not whole.
func (m *admin) export(w http.ResponseWriter, r *http.Request) error {
	return m.stream(w, r, "application/x-ndjson", "exporting the ledger", func() error { return m.Entries.Export(r.Context(), w) })
}

// stream answers with what write writes. What goes wrong after the first byte cuts the
// answer off, so that nobody takes it for whole.
func (m *admin) stream(w http.ResponseWriter, r *http.Request, mediaType, what string, write func() error) error {
	if m.Actor(r.Context()) == "" {
		return counterfoil.Refuse(counterfoil.RoleRequired, "the system does not say who is at the other end of the socket")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", mediaType)
	err := write()
	if err == nil {
		return nil
	}
	m.Logger.ErrorContext(r.Context(), what, "request_id", RequestID(r.Context()), "err", err)
	if tracked, ok := w.(*writer); ok && tracked.wrote {
		panic(http.ErrAbortHandler)
	}
	if _, refused := counterfoil.AsRefusal(err); refused {
		return err
	}
	return counterfoil.NewFault(counterfoil.LedgerUnavailable, err)
}
