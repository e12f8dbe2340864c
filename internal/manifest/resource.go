package manifest

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/policy"
)

// resource reads a protected server.
func (d *doc) resource(n *yaml.Node, m members, name string) *counterfoil.Resource {
	r := &counterfoil.Resource{Name: name, Binding: counterfoil.BindingRequire}
	m["type"] = d.enum(&r.Type, counterfoil.ResourceMCP, counterfoil.ResourceHTTP, counterfoil.ResourceDirect)
	m["environment"] = d.text(&r.Environment, counterfoil.CheckName)
	m["upstream"] = d.text(&r.Upstream, checkUpstream)
	m["public_url"] = d.text(&r.PublicURL, checkPublicURL)
	m["binding"] = d.enum(&r.Binding, counterfoil.BindingRequire, counterfoil.BindingPrefer, counterfoil.BindingObserve)
	m["require_from"] = d.moment(&r.RequireFrom)
	m["bearers"] = d.list(func(n *yaml.Node, at string) { d.bearer(r, n, at) })
	m["credential"] = func(n *yaml.Node, at string) { r.Credential = d.credential(n, at) }
	var nodes []*yaml.Node
	m["tools"] = d.list(func(n *yaml.Node, at string) {
		r.Tools = append(r.Tools, d.tool(n, at))
		nodes = append(nodes, n)
	})
	var spec *expansion
	m["openapi"] = func(n *yaml.Node, at string) { spec = d.openAPI(n, at) }
	m["resources"] = d.text(&r.Resources, counterfoil.CheckName)
	m["prompts"] = d.text(&r.Prompts, counterfoil.CheckName)
	m["servers"] = d.words(&r.Servers, counterfoil.CheckName)
	before := len(d.problems)
	d.object(n, "", m, "name", "type", "environment")
	if spec != nil && len(d.problems) == before {
		nodes, d.described = spec.into(d, r, nodes), spec
	}
	if len(d.problems) == before {
		d.resourceWhole(n, r, nodes)
	}
	return r
}

// moment reads when something happens: a date, which is its first second in UTC, or a
// time (RFC 3339) in whole seconds.
func (d *doc) moment(dst *time.Time) handler {
	const want = "a date such as 2027-01-31 or a time such as 2027-01-31T08:00:00Z"
	return func(n *yaml.Node, at string) {
		s, ok := d.scalar(n, at, want, "!!timestamp", "!!str")
		if !ok {
			return
		}
		t, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t, err = time.Parse(time.RFC3339, s)
		}
		switch {
		case err != nil || t.Year() < 2000:
			d.fail(n, at, "%.40q is not %s", s, want)
		case t.Nanosecond() != 0:
			d.fail(n, at, "%.40q is not whole seconds", s)
		default:
			*dst = t.UTC()
		}
	}
}

// credential reads what the gateway shows the upstream. Where the secret comes from is
// said exactly once: of two places the wrong one would be used one day.
func (d *doc) credential(n *yaml.Node, at string) *counterfoil.UpstreamCredential {
	c := &counterfoil.UpstreamCredential{}
	before := len(d.problems)
	d.object(n, at, members{
		"header":    d.text(&c.Header, checkHeaderName),
		"prefix":    d.optional(&c.Prefix),
		"file":      d.text(&c.File, checkSecretFile),
		"stored":    d.text(&c.Stored, counterfoil.CheckName),
		"exec":      d.text(&c.Exec, checkProgram),
		"url":       d.text(&c.URL, checkPush),
		"url_token": d.text(&c.URLToken, checkSecretFile),
		"oauth":     func(n *yaml.Node, at string) { c.OAuth = d.oauth(n, at) },
		"ttl":       d.duration(&c.TTL),
	}, "header")
	if len(d.problems) > before {
		return c
	}
	var sources []string
	for _, s := range []struct {
		name string
		have bool
	}{{"file", c.File != ""}, {"stored", c.Stored != ""}, {"exec", c.Exec != ""}, {"url", c.URL != ""}, {"oauth", c.OAuth != nil}} {
		if s.have {
			sources = append(sources, s.name)
		}
	}
	switch {
	case len(sources) == 0:
		d.fail(n, at, "nothing says where the secret comes from; write one of file, stored, exec, url, oauth")
	case len(sources) > 1:
		d.fail(n, at, "the secret comes from one place, not from %s", strings.Join(sources, " and "))
	case c.URLToken != "" && c.URL == "":
		d.fail(n, at, "url_token goes with url")
	case c.TTL != 0 && (c.File != "" || c.Stored != ""):
		d.fail(n, at, "ttl goes with exec, url and oauth: a secret of %s is read anew when it changes", sources[0])
	}
	return c
}

func (d *doc) oauth(n *yaml.Node, at string) *counterfoil.OAuthProvider {
	o := &counterfoil.OAuthProvider{}
	d.object(n, at, members{
		"token_url":     d.text(&o.TokenURL, checkPush),
		"client_id":     d.text(&o.ClientID),
		"client_secret": d.text(&o.ClientSecret, checkSecretFile),
		"scope":         d.text(&o.Scope),
		"audience":      d.text(&o.Audience),
		"resource":      d.text(&o.Resource, checkIssuer),
		"subject_token": d.text(&o.SubjectToken, checkSecretFile),
	}, "token_url", "client_id", "client_secret")
	return o
}

// checkProgram takes the plain name of a program in the folder of providers.
func checkProgram(s string) error {
	if checkSecretFile(s) != nil {
		return fmt.Errorf("%.80q is not the plain file name of a program in providers_dir: letters, digits, _ - and ., without a slash and without arguments", s)
	}
	return nil
}

var keyDigest = regexp.MustCompile(`^sha-256:[A-Za-z0-9_-]{43}$`)

// checkKeyDigest takes the digest of a static key, written in the one way that base64
// has for it. The key itself is a secret and is nowhere.
func checkKeyDigest(s string) error {
	if !keyDigest.MatchString(s) {
		return errors.New("is not the digest of a key, sha-256: and 43 characters; `counterfoil bearer digest` makes it from the key, which is not written here")
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(s, "sha-256:")); err != nil {
		return errors.New("is not the digest of a key: its last character cannot end one")
	}
	return nil
}

// bearer reads one credential that is taken without a key.
func (d *doc) bearer(r *counterfoil.Resource, n *yaml.Node, at string) {
	var b counterfoil.Bearer
	before := len(d.problems)
	d.object(n, at, members{
		"agent":    d.text(&b.Agent, counterfoil.CheckName),
		"key":      d.text(&b.Key, checkKeyDigest),
		"issuer":   d.text(&b.Issuer, checkIssuer),
		"subject":  d.text(&b.Subject, checkSubject),
		"audience": d.text(&b.Audience),
		"jwks_uri": d.text(&b.JWKSURI, checkDeliveryURL),
		"keys":     d.list(func(n *yaml.Node, at string) { d.jwk(&b.Keys, n, at, eventKey) }),
	}, "agent")
	outside := b.Issuer != "" || b.Subject != "" || b.Audience != "" || b.JWKSURI != "" || len(b.Keys) > 0
	switch {
	case len(d.problems) > before:
		return
	case b.Key != "" && outside:
		d.fail(n, at, "a static key has no issuer and nothing of one; write two bearers")
	case b.Key != "":
	case b.Issuer == "" || b.Subject == "":
		d.fail(n, at, "write a static key's digest (key), or issuer and subject of the tokens that are taken")
	case b.JWKSURI == "" && len(b.Keys) == 0:
		d.fail(n, at, "neither jwks_uri nor keys is there: without a key nobody's token can be told from anybody's")
	case b.JWKSURI != "" && len(b.Keys) > 0:
		d.fail(n, at, "jwks_uri and keys are there, both; name the issuer's keys in one place")
	}
	// Of two that take one credential each would say whose call it is.
	for i, o := range r.Bearers {
		if o.Key == b.Key && o.Issuer == b.Issuer && o.Subject == b.Subject && o.Audience == b.Audience {
			d.fail(n, at, "bearers[%d] takes the same credential", i)
			return
		}
	}
	r.Bearers = append(r.Bearers, b)
}

// resourceWhole checks what concerns several members of a resource at once.
func (d *doc) resourceWhole(n *yaml.Node, r *counterfoil.Resource, tools []*yaml.Node) {
	fronted, isHTTP := r.Type != counterfoil.ResourceDirect, r.Type == counterfoil.ResourceHTTP
	switch {
	case r.Type == counterfoil.ResourceMCP && r.Upstream == "":
		d.fail(n, "", "member \"upstream\" is missing: the gateway forwards to it; a resource that is not fronted has type direct")
	case isHTTP && r.Upstream == "" && r.PublicURL == "":
		d.fail(n, "", "member \"upstream\" is missing: the gateway forwards to it; without one, other enforcement points alone serve the resource, at its public_url")
	case !fronted && r.PublicURL == "":
		d.fail(n, "", "member \"public_url\" is missing: a direct resource is known to agents by its own URL")
	}
	refuse := func(have bool, member, why string) {
		if have {
			d.problem(d.pos[member], "%s: %s: %s", d.label, member, why)
		}
	}
	loose := r.Binding != counterfoil.BindingRequire
	refuse(!fronted && r.Upstream != "", "upstream", "a direct resource is not fronted; leave the upstream out or use type mcp or http")
	refuse(!fronted && r.Credential != nil, "credential", "a direct resource is not fronted, so no credential is ever shown to it")
	refuse(r.Type != counterfoil.ResourceMCP && r.Resources != "", "resources", "only mcp resources have it")
	refuse(r.Type != counterfoil.ResourceMCP && r.Prompts != "", "prompts", "only mcp resources have it")
	refuse(isHTTP && strings.Contains(r.Upstream, "?"), "upstream", "must not have a query: the query is the call's")
	refuse(!fronted && len(r.Bearers) > 0, "bearers", "a direct resource is not fronted: what it takes is its own affair")
	refuse(!fronted && loose, "binding", "a direct resource is not fronted: what it takes is its own affair; leave the member out")
	refuse(fronted && loose && len(r.Bearers) == 0, "binding", "takes a bearer token beside bound ones, and no bearers say which; name them, or use require")
	refuse(!loose && !r.RequireFrom.IsZero(), "require_from", "goes with binding observe or prefer; with require it is so already")
	for i := range r.Tools {
		d.toolWhole(r, i, tools[i])
	}
}

// toolWhole checks one tool beside those before it and beside its resource.
func (d *doc) toolWhole(r *counterfoil.Resource, i int, n *yaml.Node) {
	t, at := &r.Tools[i], fmt.Sprintf("tools[%d]", i)
	isHTTP := r.Type == counterfoil.ResourceHTTP
	switch {
	case !isHTTP && t.Class == "":
		d.fail(n, at, "member \"class\" is missing")
	case isHTTP && (t.Method == "" || t.Path == ""):
		d.fail(n, at, "a tool of an http resource needs method and path")
	case !isHTTP && (t.Method != "" || t.Path != ""):
		d.fail(n, at, "only tools of http resources have method and path")
	case !isHTTP && (len(t.Consumes) > 0 || len(t.Headers) > 0 || t.Stream || t.WebSocket || t.Colons || t.Schema != ""):
		d.fail(n, at, "only tools of http resources have consumes, headers, stream, websocket, colons and schema")
	case r.Type == counterfoil.ResourceMCP && (t.Name == counterfoil.ToolResources || t.Name == counterfoil.ToolPrompts):
		d.fail(n, at, "the name %q is reserved: it stands for the server's %s, which the member %q gives a class", t.Name, t.Name, t.Name)
	}
	if isHTTP {
		d.httpTool(r, t, n, at)
	}
	for j, other := range r.Tools[:i] {
		switch {
		case other.Name == t.Name:
			d.fail(n, at, "tool %q is there twice; the first is tools[%d]", t.Name, j)
		case isHTTP && t.Path != "" && other.Method == t.Method && clash(&other, t):
			d.fail(n, at, "tool %q and tool %q match the same requests equally well (%s %s and %s)", t.Name, other.Name, t.Method, t.Path, other.Path)
		}
	}
}

// httpTool checks what of an HTTP tool goes with what.
func (d *doc) httpTool(r *counterfoil.Resource, t *counterfoil.Tool, n *yaml.Node, at string) {
	bodyless := t.Method == "GET" || t.Method == "HEAD"
	inBody := func(p string) bool { return p == "/body" || strings.HasPrefix(p, "/body/") }
	reads := ""
	for name, p := range t.Fields {
		if inBody(p) && (reads == "" || name < reads) {
			reads = name
		}
	}
	switch {
	case bodyless && len(t.Consumes) > 0:
		d.fail(n, at, "a %s has no body, so it consumes nothing", t.Method)
	case bodyless && t.Stream:
		d.fail(n, at, "a %s has no body to stream; what is answered is streamed without this", t.Method)
	case bodyless && reads != "":
		d.fail(n, at, "a %s has no body, so fields.%s is of nothing", t.Method, reads)
	case t.Stream && slices.ContainsFunc(t.Consumes, isForm):
		d.fail(n, at, "a form can change the method in the eyes of common frameworks, so it is read and never streamed; leave %s out of consumes, or stream out",
			t.Consumes[slices.IndexFunc(t.Consumes, isForm)])
	case t.Stream && reads != "":
		d.fail(n, at, "nobody reads a body that is passed on as it comes, so fields.%s is of nothing", reads)
	case t.WebSocket && t.Method != "GET" && t.Method != "":
		d.fail(n, at, "a WebSocket begins with a GET (RFC 6455, Section 4.1)")
	}
	if c := r.Credential; c != nil {
		for _, h := range t.Headers {
			if strings.EqualFold(h, c.Header) {
				d.fail(n, at, "header %q is the one that carries the credential", h)
			}
		}
	}
}

// argumentParts are the members of an HTTP call's arguments.
var argumentParts = []string{"path", "query", "body"}

// tool reads one tool. What of it depends on the resource's type is checked when all
// of the resource was read.
func (d *doc) tool(n *yaml.Node, at string) counterfoil.Tool {
	var t counterfoil.Tool
	var path *yaml.Node
	d.object(n, at, members{
		"name":      d.text(&t.Name, counterfoil.CheckToolName),
		"class":     d.text(&t.Class, counterfoil.CheckName),
		"method":    d.enum(&t.Method, methods...),
		"path":      func(n *yaml.Node, at string) { path = n; d.text(&t.Path)(n, at) },
		"consumes":  d.words(&t.Consumes, checkMediaType),
		"headers":   d.headers(&t.Headers),
		"stream":    d.flag(&t.Stream),
		"websocket": d.flag(&t.WebSocket),
		"colons":    d.flag(&t.Colons),
		"schema":    d.schema(&t.Schema),
		"fields":    func(n *yaml.Node, at string) { t.Fields = d.fields(n, at) },
	}, "name")
	if t.Path != "" {
		check := checkPath
		if t.Class == "" {
			check = checkUnlisted
		}
		if err := check(t.Path); err != nil {
			d.fail(path, join(at, "path"), "%v", err)
		}
	}
	return t
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// fields reads names with the place in the arguments that each stands for.
func (d *doc) fields(n *yaml.Node, at string) map[string]string {
	if !d.plain(n, at, yaml.MappingNode) {
		return nil
	}
	fields, all := map[string]string{}, members{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if err := checkFieldName(name); err != nil {
			d.fail(n.Content[i], at, "%v", err)
		}
		all[name] = func(n *yaml.Node, at string) {
			var p string
			if d.text(&p, checkPointer)(n, at); p != "" {
				fields[name] = p
			}
		}
	}
	d.object(n, at, all)
	if len(fields) == 0 {
		return nil
	}
	return fields
}

func checkPointer(s string) error {
	_, err := policy.ParsePointer(s)
	return err
}

// headers reads names of request headers, of which none is there twice in another
// case.
func (d *doc) headers(dst *[]string) handler {
	return d.words(dst, checkForwarded, func(s string) error {
		for _, h := range *dst {
			if h != s && strings.EqualFold(h, s) {
				return fmt.Errorf("%.80q is there as %q", s, h)
			}
		}
		return nil
	})
}

var mediaType = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$`)

// checkMediaType takes a media type (RFC 6838, Section 4.2) without parameters. JSON is
// read, whatever a tool says, because rules may be about what is in it.
func checkMediaType(s string) error {
	switch {
	case !mediaType.MatchString(s):
		return fmt.Errorf("%.80q is not a media type in lower case without parameters, such as image/png", s)
	case isJSON(s):
		return fmt.Errorf("%q is JSON, which is taken without being named", s)
	}
	return nil
}

// isForm reports whether common frameworks read fields in a body of that type.
func isForm(media string) bool {
	return media == "application/x-www-form-urlencoded" || strings.HasPrefix(media, "multipart/")
}

func isJSON(media string) bool {
	return media == "application/json" || strings.HasSuffix(media, "+json")
}
