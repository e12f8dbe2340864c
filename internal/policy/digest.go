package policy

import (
	"crypto/sha256"
	"encoding/base64"

	"github.com/go-json-experiment/json"

	"github.com/counterfoil/counterfoil"
)

// digestFormat changes when the meaning of what is hashed changes, so that one
// digest never stands for two ways to decide.
const digestFormat = "counterfoil/policy/1"

// What of each noun decides. The order of a list is kept: it is the operator's
// text; maps are sorted by the encoder.
type (
	decidingSet struct {
		Format    string                        `json:"format"`
		Agents    map[string]decidingAgent      `json:"agents"`
		Classes   map[string]*counterfoil.Class `json:"classes"`
		Resources map[string]decidingResource   `json:"resources"`
		Policies  map[string]string             `json:"policies"`

		Vocabularies map[string]decidingVocabulary `json:"vocabularies,omitempty"`
	}
	decidingVocabulary struct {
		Servers []string `json:"servers"`
		Class   string   `json:"class"`
		Cedar   string   `json:"cedar"`
	}
	decidingAgent struct {
		Environment string              `json:"environment"`
		Grants      []counterfoil.Grant `json:"grants"`
	}
	decidingResource struct {
		Type        string             `json:"type"`
		Environment string             `json:"environment"`
		Tools       []counterfoil.Tool `json:"tools"`
		Resources   string             `json:"resources"`
		Prompts     string             `json:"prompts"`
	}
)

func digest(reg *counterfoil.Registry) string {
	d := decidingSet{
		Format:    digestFormat,
		Agents:    make(map[string]decidingAgent, len(reg.Agents)),
		Classes:   reg.Classes,
		Resources: make(map[string]decidingResource, len(reg.Resources)),
		Policies:  make(map[string]string, len(reg.Policies)),
	}
	for name, a := range reg.Agents {
		if a != nil {
			d.Agents[name] = decidingAgent{a.Environment, a.Grants}
		}
	}
	for name, r := range reg.Resources {
		if r != nil {
			d.Resources[name] = decidingResource{r.Type, r.Environment, r.Tools, r.Resources, r.Prompts}
		}
	}
	for name, p := range reg.Policies {
		if p != nil {
			d.Policies[name] = p.Cedar
		}
	}
	for name, v := range reg.Vocabularies {
		if v != nil {
			if d.Vocabularies == nil {
				d.Vocabularies = map[string]decidingVocabulary{}
			}
			d.Vocabularies[name] = decidingVocabulary{v.Servers, v.Class, v.Cedar}
		}
	}
	h := sha256.New()
	if err := json.MarshalWrite(h, d, json.Deterministic(true)); err != nil {
		// Only text that is not UTF-8 gets here. Manifests cannot hold any; an
		// empty digest equals no other.
		return ""
	}
	return "sha-256:" + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}
