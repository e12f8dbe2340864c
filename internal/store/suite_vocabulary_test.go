package store

import (
	"reflect"
	"testing"

	"github.com/counterfoil/counterfoil"
)

func suiteVocabularies(t *testing.T, s *subject) {
	v := &counterfoil.Vocabulary{Name: "records", Servers: []string{"edge"}, Class: "read", Cedar: "permit (principal is user, action, resource is record);"}
	s.apply(document(t, counterfoil.KindVocabulary, "records", v))
	old, _ := s.Registry()
	for range 2 {
		if reg, _ := s.Registry(); !reflect.DeepEqual(reg.Vocabularies["records"], v) {
			t.Errorf("kept is %+v", reg.Vocabularies)
		}
		s.reopen()
	}
	s.wantDone(s.put(counterfoil.Change{Delete: []counterfoil.DocKey{{Kind: counterfoil.KindVocabulary, Name: "records"}}}))
	if reg, _ := s.Registry(); reg.Vocabularies["records"] != nil || old.Vocabularies["records"] == nil {
		t.Error("it was not deleted, or from what was handed out")
	}
}
