package credential

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

// The vectors in ../vectors are data for any implementation. They are made
// from the tables of this package's tests:
//
//	go test ./credential -run TestVectors -update
//
// Without -update the test fails when a file is not what the tables make, and
// runs every row as it is in the file.
var update = flag.Bool("update", false, "write the files in ../vectors")

// vectorFile is the format; vectors/README.md describes it.
type vectorFile struct {
	Description string    `json:"description"`
	Clauses     string    `json:"clauses"`
	Now         int64     `json:"now"`
	Method      string    `json:"method,omitempty"`
	URL         string    `json:"url,omitempty"`
	AccessToken string    `json:"access_token,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	Audience    string    `json:"audience,omitempty"`
	Key         any       `json:"key,omitempty"`
	Nonce       string    `json:"nonce,omitempty"`
	Accepted    []*vector `json:"accepted"`
	Refused     []*vector `json:"refused"`
}

// A vector is one row. Header holds the values of the DPoP header, Compact an
// assertion or a token, JWK a key, Requests requests of which the last is the
// row's and those before it are accepted.
type vector struct {
	Name    string           `json:"name"`
	Check   string           `json:"check,omitempty"`
	Header  []string         `json:"header,omitempty"`
	Compact string           `json:"compact,omitempty"`
	JWK     string           `json:"jwk,omitempty"`
	Code    counterfoil.Code `json:"code,omitempty"`
	Thumb   string           `json:"thumbprint,omitempty"`

	Requests []vectorRequest `json:"requests,omitempty"`
}

// A vectorRequest is what a request to a resource shows.
type vectorRequest struct {
	Authorization string `json:"authorization"`
	DPoP          string `json:"dpop"`
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for name, made := range map[string]*vectorFile{
		"proofs.json":     proofVectors(),
		"assertions.json": assertionVectors(),
		"tokens.json":     tokenVectors(),
		"keys.json":       keyVectors(),
		"requests.json":   requestVectors(), // package resource runs them: it holds what must be remembered
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runVectors(t, name, made)
		})
	}
}

func runVectors(t *testing.T, name string, made *vectorFile) {
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(made); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "vectors", name)
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(data, want.Bytes()) {
		t.Errorf("%s is not what the tables make; run the test with -update", path)
	}
	var f vectorFile
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Accepted) == 0 || len(f.Refused) == 0 {
		t.Fatal("a file without accepted or without refused rows shows nothing")
	}
	seen := map[string]bool{}
	for _, v := range append(f.Accepted, f.Refused...) {
		if seen[v.Name] {
			t.Errorf("two rows are named %q", v.Name)
		}
		seen[v.Name] = true
		if v.Requests != nil {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			thumb, err := f.run(v)
			if v.Code == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				if v.Thumb != "" && thumb != v.Thumb {
					t.Errorf("thumbprint %s, want %s", thumb, v.Thumb)
				}
				return
			}
			if name == "keys.json" {
				if err == nil {
					t.Error("the key is accepted")
				}
				return
			}
			wantRefused(t, err, v.Code)
		})
	}
}

// run reads and checks one row and returns the thumbprint of its key.
func (f *vectorFile) run(v *vector) (string, error) {
	now := time.Unix(f.Now, 0)
	key, err := f.key()
	if err != nil {
		return "", err
	}
	switch {
	case v.JWK != "":
		k, err := ParseJWK([]byte(v.JWK))
		return k.Thumbprint(), err
	case f.Method != "":
		u, err := ParseProof(v.Header)
		if err != nil {
			return "", err
		}
		hash := ""
		if f.AccessToken != "" {
			hash = TokenHash(f.AccessToken)
		}
		p, err := u.Check(ProofRequest{Method: f.Method, URL: f.URL, TokenHash: hash}, now)
		return p.JKT, err
	case f.Audience != "":
		u, err := ParseToken(v.Compact)
		if err != nil {
			return "", err
		}
		tok, err := u.Check(key, f.Issuer, f.Audience, now)
		return tok.JKT, err
	default:
		u, err := ParseAssertion(v.Compact)
		if err != nil {
			return "", err
		}
		a, err := u.Check(key, f.Issuer, now)
		return a.KeyThumbprint, err
	}
}

func (f *vectorFile) key() (PublicKey, error) {
	if f.Key == nil {
		return PublicKey{}, nil
	}
	b, err := json.Marshal(f.Key)
	if err != nil {
		return PublicKey{}, err
	}
	return ParseJWK(b)
}

// A row makes one vector out of the honest credential by changing one thing.
type row struct {
	name, check string
	header      [2]string           // replace in the header
	claims      [2]string           // replace in the claims
	key         any                 // sign with this crypto.Signer instead
	mangle      func(string) string // change the compact form
	code        counterfoil.Code    // empty: accepted
}
