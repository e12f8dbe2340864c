package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"mime"
	"net/http"
	"strings"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// A webBody is the body of a request as it goes upstream.
type webBody struct {
	bytes  []byte // nil where there is none
	media  string // Content-Type; empty where there is no body
	digest string // Content-Digest (RFC 9530); of what is not JSON
}

// opaque reports whether it is a body that nobody here reads.
func (b *webBody) opaque() bool { return b.digest != "" }

// member is what the arguments say of the body: the value that it is, in canonical JSON,
// or what it is and its digest; nil where there is none.
func (b *webBody) member() []byte {
	switch {
	case b.media == "":
		return nil
	case !b.opaque():
		return b.bytes
	}
	return append(appendMember(appendMember([]byte{'{'}, "content_digest", quote(b.digest)), "content_type", quote(b.media)), '}')
}

// readBody reads the body of a request for a tool. Of JSON what goes on is its canonical
// form; of what the tool takes beside that, the bytes that came.
func (c *httpCall) readBody() (webBody, error) {
	var none webBody
	raw, err := c.read()
	if err != nil {
		return none, err
	}
	bodyless := false
	switch c.r.Method {
	case http.MethodGet, http.MethodHead:
		if len(raw) > 0 {
			return none, counterfoil.Refuse(counterfoil.RequestMalformed, "a %s has no body", c.r.Method)
		}
		bodyless = true
	case http.MethodDelete, http.MethodOptions:
		bodyless = true // clients that send a type with every request
	}
	switch {
	case len(raw) > 0:
	case !bodyless && len(c.r.Header["Content-Type"]) > 0:
		// A body that was there for another reader: one that frames requests in another way.
		return none, counterfoil.Refuse(counterfoil.RequestMalformed, "the request says what its body is and has none: send no Content-Type, or a body")
	default:
		return none, nil
	}
	media, json, err := c.mediaType()
	switch {
	case err != nil:
		return none, err
	case json:
		text, err := ijson.Canonical(raw)
		if err != nil {
			return none, malformed("%v", err)
		}
		if jsonOverride(text) {
			return none, counterfoil.Refuse(counterfoil.RequestMalformed, "a member of the body would change the method")
		}
		return webBody{bytes: text, media: media}, nil
	}
	if err := refuseOverride(media, raw); err != nil {
		return none, err
	}
	return webBody{bytes: raw, media: media, digest: contentDigest(raw)}, nil
}

// mediaType returns the Content-Type as it goes on, and whether it is JSON.
func (c *httpCall) mediaType() (media string, json bool, err error) {
	values := c.r.Header["Content-Type"]
	if len(values) != 1 {
		return "", false, counterfoil.Refuse(counterfoil.RequestMalformed, "a body needs one Content-Type")
	}
	t, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return "", false, counterfoil.Refuse(counterfoil.RequestMalformed, "the Content-Type cannot be read")
	}
	if t == typeJSON || strings.HasSuffix(t, "+json") {
		for name, v := range params {
			if name != "charset" || !strings.EqualFold(v, "utf-8") {
				return "", false, counterfoil.Refuse(counterfoil.RequestMalformed, "JSON is taken in UTF-8, without other parameters")
			}
		}
		if t != typeJSON && len(c.tool.consumes) > 0 && !c.tool.consumes[t] && !c.tool.consumes[typeJSON] {
			return "", false, counterfoil.Refuse(counterfoil.RequestMalformed, "the tool %s takes no bodies of type %s", c.tool.Name, t)
		}
		return t, true, nil
	}
	if !c.tool.consumes[t] {
		return "", false, counterfoil.Refuse(counterfoil.RequestMalformed, "the tool %s takes no bodies of type %.64q: send application/json", c.tool.Name, t)
	}
	if media = mime.FormatMediaType(t, params); media == "" || !isPlain(media) {
		return "", false, counterfoil.Refuse(counterfoil.RequestMalformed, "the Content-Type cannot be read")
	}
	return media, false, nil
}

// contentDigest is the Content-Digest of RFC 9530.
func contentDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}
