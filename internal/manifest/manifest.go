// Package manifest reads and writes the declarative documents of the registry:
// YAML on one side, the nouns of the root package on the other.
//
// Reading is strict: unknown members, wrong types, names and enumerations are
// errors, and so is everything of YAML that makes one text mean another: anchors,
// aliases, merge keys, tags and duplicate keys. All problems are reported at
// once, each with its file and line. Parse looks at one document at a time, Merge
// at all of them together with what is there already.
//
// Everything here is pure: no file is opened, no name resolved, and nothing
// panics, whatever the bytes.
//
// Not checked here: whether an agent's name was offboarded, whether a key was
// ever another's, whether an upstream or a secret's file is there.
package manifest

import (
	"fmt"

	"github.com/counterfoil/counterfoil"
)

// Kinds of document.
const (
	KindPerson   = "Person"
	KindClass    = "Class"
	KindResource = "Resource"
	KindAgent    = "Agent"
	KindPolicy   = "Policy"

	KindTransmitter = "Transmitter"
	KindVocabulary  = "Vocabulary"
)

// Kinds returns the kinds of document, in the order in which they refer to each
// other.
func Kinds() []string {
	return []string{KindPerson, KindClass, KindResource, KindAgent, KindPolicy, KindTransmitter, KindVocabulary}
}

// A File is one manifest file as it was read.
type File struct {
	Name string // as problems name it
	Data []byte
}

// A Position is where something stands in a file. Line counts from 1.
type Position struct {
	File string
	Line int
}

// A Problem is one thing wrong with a manifest. One about a document that stands
// in none of the files at hand has no File.
type Problem struct {
	File string
	Line int
	Text string
}

// String returns "file:line: text".
func (p Problem) String() string {
	switch {
	case p.File == "":
		return p.Text
	case p.Line == 0:
		return fmt.Sprintf("%s: %s", p.File, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
}

// A Document is one noun out of a manifest.
type Document struct {
	Kind, Name string
	Noun       any // *counterfoil.Person, Class, Resource, Agent, Policy, Transmitter or Vocabulary

	// Pos says where each member stands, by its path ("grants[1].when"); "" is
	// the document itself.
	Pos map[string]Position

	// literal are the members whose text begins on the line after theirs.
	literal map[string]bool

	// described is a resource's OpenAPI description, if it names one.
	described *expansion
}

// A Change is what a merge does to one document.
type Change struct {
	Kind, Name string
	Verb       string   // Create, Update or Unchanged
	Fields     []string // members that an update changes, sorted
}

// Verbs of a change.
const (
	Create    = "create"
	Update    = "update"
	Unchanged = "unchanged"
)

// NameOf returns kind and name of a noun, or nothing for what is none.
func NameOf(noun any) (kind, name string) {
	switch n := noun.(type) {
	case *counterfoil.Person:
		if n != nil {
			return KindPerson, n.Name
		}
	case *counterfoil.Class:
		if n != nil {
			return KindClass, n.Name
		}
	case *counterfoil.Resource:
		if n != nil {
			return KindResource, n.Name
		}
	case *counterfoil.Agent:
		if n != nil {
			return KindAgent, n.Name
		}
	case *counterfoil.Policy:
		if n != nil {
			return KindPolicy, n.Name
		}
	case *counterfoil.Transmitter:
		if n != nil {
			return KindTransmitter, n.Name
		}
	case *counterfoil.Vocabulary:
		if n != nil {
			return KindVocabulary, n.Name
		}
	}
	return "", ""
}
