package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/credential"
	"github.com/counterfoil/counterfoil/ijson"
)

// An EnrolConfig says which agent a new key is enrolled for.
type EnrolConfig struct {
	Issuer string
	Agent  string
	Code   counterfoil.Secret // the one-time code of an administrator
	Signer *credential.Signer // the new key, saved before
	HTTP   *http.Client       // as in Config
	Now    func() time.Time   // time.Now when nil
}

// An EnrolResult is the instance that was registered.
type EnrolResult struct {
	Agent    string `json:"agent"`
	Instance string `json:"instance"`
	JKT      string `json:"jkt"` // the key's thumbprint
}

// Enroll registers the key as an instance of the agent. The key proves itself
// and stays here. A code works once: after an error that is no refusal the
// enrolment may have happened, and a token request tells.
func Enroll(ctx context.Context, c EnrolConfig) (EnrolResult, error) {
	if err := counterfoil.CheckName(c.Agent); err != nil {
		return EnrolResult{}, fmt.Errorf("the agent's name: %w", err)
	}
	if c.Code.Empty() {
		return EnrolResult{}, errors.New("there is no enrolment code")
	}
	i, err := newIssuer(c.Issuer, c.Signer, c.HTTP, c.Now)
	if err != nil {
		return EnrolResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	meta, err := i.metadata(ctx)
	if err != nil {
		return EnrolResult{}, err
	}
	if meta.Enrolment == "" {
		return EnrolResult{}, fmt.Errorf("%s takes no enrolments: its metadata names no endpoint for them", c.Issuer)
	}
	body, err := ijson.Marshal(struct {
		Agent string `json:"agent"`
		Code  string `json:"code"`
	}{c.Agent, c.Code.Reveal()})
	if err != nil {
		return EnrolResult{}, fmt.Errorf("enrolling: %w", err)
	}
	// A passing fault is not repeated: the code may be spent already.
	status, answer, err := i.send(ctx, false, func(nonce string) (*http.Request, error) {
		proof, err := credential.SignProof(c.Signer, http.MethodPost, meta.Enrolment, nonce, "", i.now())
		if err != nil {
			return nil, fmt.Errorf("signing a proof: %w", err)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, meta.Enrolment, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json")
		req.Header.Set("DPoP", proof)
		return req, nil
	})
	if err != nil {
		return EnrolResult{}, fmt.Errorf("enrolling at %s: %w", c.Issuer, err)
	}
	if status != http.StatusCreated {
		return EnrolResult{}, fmt.Errorf("enrolling at %s: %w", c.Issuer, refusedBy("the issuer", status, answer))
	}
	var r EnrolResult
	if err := ijson.UnmarshalLax(answer, &r); err != nil {
		return EnrolResult{}, fmt.Errorf("enrolling at %s: reading its answer: %w", c.Issuer, err)
	}
	if r.Agent != c.Agent || r.JKT != c.Signer.Public().Thumbprint() || r.Instance == "" {
		return EnrolResult{}, fmt.Errorf("enrolling at %s: it enrolled another agent or another key than was asked", c.Issuer)
	}
	return r, nil
}
