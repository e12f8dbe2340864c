package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// A RotateConfig says which key is replaced.
type RotateConfig struct {
	Issuer string
	Agent  string
	Path   string // of the key's file

	Alg     string        // of the new key; that of the present one when empty
	Overlap time.Duration // how long the old key is taken beside the new one; zero ends it at once

	HTTP *http.Client     // as in Config
	Now  func() time.Time // time.Now when nil
}

// A RotateResult is what a rotation came to.
type RotateResult struct {
	Agent    string `json:"agent"`
	Instance string `json:"instance,omitzero"` // not known when an earlier run's answer was lost
	JKT      string `json:"jkt"`               // thumbprint of the new key
	Previous struct {
		JKT   string    `json:"jkt"`
		Until time.Time `json:"until,omitzero"` // when it ends or ended, where that is known
	} `json:"previous"`
}

// NewKeyPath is where the next key of a file waits while a rotation is under way.
func NewKeyPath(path string) string { return path + ".new" }

// Rotate replaces an instance's key by a new one. The new key is made and kept beside
// the old one's file before the issuer hears of it, proves itself together with the
// old one, and then takes its file's place. The instance, its tasks and its approvals
// stay; tokens end with the old key.
//
// After a crash or an error that is no refusal one of the two files works, the key's
// or NewKeyPath's, and the same call again finishes what was begun: it finds out
// whether the issuer has the new key already.
func Rotate(ctx context.Context, c RotateConfig) (RotateResult, error) {
	r := rotation{RotateConfig: c}
	var err error
	if r.old, err = LoadKey(c.Path); err != nil {
		return RotateResult{}, err
	}
	begun, err := r.prepare()
	if err != nil {
		return RotateResult{}, fmt.Errorf("rotating the key %s: %w", c.Path, err)
	}
	done, err := r.ask(ctx, begun)
	if err != nil {
		return RotateResult{}, fmt.Errorf("rotating the key %s: %w", c.Path, err)
	}
	if err := r.finish(); err != nil {
		return RotateResult{}, fmt.Errorf("rotating the key %s: the issuer has the new key, but %s could not be put in its place; run this again: %w",
			c.Path, NewKeyPath(c.Path), err)
	}
	return done, nil
}

// A rotation is one run of Rotate.
type rotation struct {
	RotateConfig
	old, next *credential.Signer
}

// prepare makes the new key, or finds the one of a run that did not end. It reports
// whether there was one.
func (r *rotation) prepare() (begun bool, err error) {
	path := NewKeyPath(r.Path)
	if _, err := os.Lstat(path); err == nil {
		r.next, err = LoadKey(path)
		return true, err
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	alg := r.Alg
	if alg == "" {
		alg = r.old.Public().Alg()
	}
	key, err := credential.GenerateKey(alg)
	if err != nil {
		return false, err
	}
	// A crash may leave a part of a key. So it is written under another name, in a
	// folder of its own as two may be at it, and gets its name when it is whole.
	dir, err := os.MkdirTemp(filepath.Dir(r.Path), ".cf")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	whole := filepath.Join(dir, "key")
	if err := SaveKey(whole, key); err != nil {
		return false, err
	}
	// Link, not rename: a key that another run put there meanwhile stays.
	if err := os.Link(whole, path); errors.Is(err, fs.ErrExist) {
		begun = true
	} else if err != nil {
		return false, err
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return false, err
	}
	r.next, err = LoadKey(path)
	return begun, err
}

// ask has the issuer take the new key, unless an earlier run did.
func (r *rotation) ask(ctx context.Context, begun bool) (RotateResult, error) {
	if begun {
		known, err := r.known(ctx)
		if known {
			return r.done(), nil
		}
		if _, refused := counterfoil.AsRefusal(err); !refused {
			return RotateResult{}, err // whether the issuer has it is not known
		}
	}
	out, err := r.rotate(ctx)
	if err == nil {
		return out, nil
	}
	// The answer may be lost, or another run was faster.
	if known, _ := r.known(ctx); known {
		return r.done(), nil
	}
	if final(err) {
		// A key that the issuer does not want belongs to nobody, and this run made it.
		if !begun {
			err = errors.Join(err, os.Remove(NewKeyPath(r.Path)))
		}
		return RotateResult{}, err
	}
	return RotateResult{}, fmt.Errorf("whether the issuer has the new key is not known, so both files stay; run this again: %w", err)
}

// done is the result where the issuer's own answer was lost.
func (r *rotation) done() RotateResult {
	out := RotateResult{Agent: r.Agent, JKT: r.next.Public().Thumbprint()}
	out.Previous.JKT = r.old.Public().Thumbprint()
	return out
}

// transport returns what signs with a key for the issuer's own pages.
func (r *rotation) transport(key *credential.Signer) (*Transport, error) {
	return NewTransport(Config{Issuer: r.Issuer, Agent: r.Agent, Signer: key, Resource: r.Issuer, HTTP: r.HTTP, Now: r.Now})
}

// known reports whether the issuer takes the new key: it gives it a token.
func (r *rotation) known(ctx context.Context) (bool, error) {
	t, err := r.transport(r.next)
	if err != nil {
		return false, err
	}
	_, err = t.Token(ctx)
	return err == nil, err
}

// rotate sends the request: a token and a proof by the old key, and inside a proof
// by the new one for the same request and token, so that nobody registers a key that
// is another's.
func (r *rotation) rotate(ctx context.Context) (RotateResult, error) {
	t, err := r.transport(r.old)
	if err != nil {
		return RotateResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	token, err := t.Token(ctx)
	if err != nil {
		return RotateResult{}, err
	}
	// Its nonces are the issuer's as a resource, not those of the token endpoint.
	i, err := newIssuer(r.Issuer, r.old, r.HTTP, r.Now)
	if err != nil {
		return RotateResult{}, err
	}
	target := strings.TrimSuffix(r.Issuer, "/") + counterfoil.RotatePath
	status, answer, err := i.send(ctx, false, func(nonce string) (*http.Request, error) {
		return r.request(ctx, target, nonce, token.Token.Reveal(), i.now())
	})
	if err != nil {
		return RotateResult{}, err
	}
	if status != http.StatusOK {
		return RotateResult{}, refusedBy("the issuer", status, answer)
	}
	var out RotateResult
	if err := ijson.UnmarshalLax(answer, &out); err != nil {
		return RotateResult{}, fmt.Errorf("reading the answer: %w", err)
	}
	if out.JKT != r.next.Public().Thumbprint() || out.Agent != r.Agent {
		return RotateResult{}, errors.New("the issuer registered another key than was sent")
	}
	return out, nil
}

// request makes one attempt, with proofs that were never sent before.
func (r *rotation) request(ctx context.Context, target, nonce, token string, now time.Time) (*http.Request, error) {
	inner, err := credential.SignProof(r.next, http.MethodPost, target, nonce, token, now)
	if err != nil {
		return nil, fmt.Errorf("signing a proof: %w", err)
	}
	outer, err := credential.SignProof(r.old, http.MethodPost, target, nonce, token, now)
	if err != nil {
		return nil, fmt.Errorf("signing a proof: %w", err)
	}
	body, err := ijson.Marshal(struct {
		Proof   string `json:"proof"`
		Overlap int64  `json:"overlap"`
	}{inner, int64(r.Overlap / time.Second)})
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "DPoP "+token)
	req.Header.Set("DPoP", outer)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	return req, nil
}

// finish puts the new key in the old one's place. A crash before it leaves both, and
// Rotate again comes here.
func (r *rotation) finish() error {
	err := os.Rename(NewKeyPath(r.Path), r.Path)
	if errors.Is(err, fs.ErrNotExist) {
		// Another run did it, or somebody took the new key away.
		now, lerr := LoadKey(r.Path)
		if lerr != nil || now.Public().Thumbprint() != r.next.Public().Thumbprint() {
			return errors.Join(err, lerr)
		}
	} else if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(r.Path))
}
