package web

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/ijson"
)

// Bounds on bodies, in bytes.
const (
	maxForm   = 64 << 10
	maxEnrol  = 4 << 10
	maxManage = 4 << 20
)

// readForm reads the body of a token request. RFC 6749, Section 3.2: parameters
// are in the body alone; what is in the query string may be in a log by now.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "there is a query string; parameters go into the body")
	}
	body, err := readBody(w, r, "application/x-www-form-urlencoded", maxForm)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the body is not application/x-www-form-urlencoded")
	}
	for name, values := range form {
		for _, v := range append([]string{name}, values...) {
			if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
				return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "a parameter is not UTF-8 text")
			}
		}
	}
	return form, nil
}

// readJSON reads a body of one strict JSON value into v. Unknown members are
// refused.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	body, err := readBody(w, r, "application/json", limit)
	if err != nil {
		return err
	}
	if err := ijson.Unmarshal(body, v); err != nil {
		return counterfoil.Refuse(counterfoil.PayloadMalformed, "the body: %v", err)
	}
	return nil
}

// readBody reads a whole body of the one media type, uncompressed. There is one
// Content-Type, and a charset only where it says what is so anyway.
func readBody(w http.ResponseWriter, r *http.Request, mediaType string, limit int64) ([]byte, error) {
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "one Content-Type is needed: %s", mediaType)
	}
	got, params, err := mime.ParseMediaType(types[0])
	if err != nil || got != mediaType {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "Content-Type is not %s", mediaType)
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "Content-Type has a parameter that is not charset=utf-8")
		}
	}
	if len(r.Header.Values("Content-Encoding")) > 0 {
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "Content-Encoding is not taken")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, counterfoil.Refuse(counterfoil.PayloadTooLarge, "the body has more than %d bytes", limit)
	case err != nil:
		// The peer is gone or sends what is no body: nothing was done.
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "the body could not be read")
	case len(r.Trailer) > 0:
		return nil, counterfoil.Refuse(counterfoil.RequestMalformed, "trailers are not taken")
	}
	return body, nil
}
