package secrets

import (
	"fmt"
	"iter"
	"strings"
)

// The kinds of references.
const (
	Env  = "env"
	File = "file"
)

// Ref names a secret.
type Ref struct {
	Kind string // Env or File
	Name string // of the variable, or the path
}

// String is the reference as it is written.
func (r Ref) String() string { return "${" + r.Kind + ":" + r.Name + "}" }

// SyntaxError says that a text holds something that looks like a reference and is none. It does not quote the text,
// which may be a secret that somebody wrote where a reference belongs.
type SyntaxError struct {
	At  int // bytes before it
	Why string
}

// Error says where, and what to write.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("after %d characters: %s; write ${env:NAME} or ${file:PATH}, and $${ for ${ itself", e.At, e.Why)
}

// Find returns the references of a text in their order. The error is a *SyntaxError.
func Find(text string) ([]Ref, error) {
	if !strings.Contains(text, "${") {
		return nil, nil
	}
	var refs []Ref
	for part, err := range parts(text) {
		if err != nil {
			return nil, err
		}
		if part.ref != (Ref{}) {
			refs = append(refs, part.ref)
		}
	}
	return refs, nil
}

// Has reports whether a text holds a reference, or something that was meant to be one.
func Has(text string) bool {
	refs, err := Find(text)
	return err != nil || len(refs) > 0
}

// CutUser splits USER:REF at the first colon that is not within a reference.
func CutUser(text string) (user, password string, ok bool) {
	at := 0
	for part, err := range parts(text) {
		if err != nil {
			return "", "", false
		}
		if part.ref == (Ref{}) {
			if i := strings.IndexByte(part.literal, ':'); i >= 0 {
				return text[:at+i], text[at+i+1:], true
			}
		}
		at += part.size
	}
	return "", "", false
}

// part is a piece of a text: a reference or what stands between two.
type part struct {
	literal string
	ref     Ref
	size    int // bytes in the text
}

// parts takes a text apart. It ends after the first error.
func parts(text string) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		for at := 0; at < len(text); {
			p, err := next(text, at)
			if !yield(p, err) || err != nil {
				return
			}
			at += p.size
		}
	}
}

// next is the piece that begins at a place.
func next(text string, at int) (part, error) {
	rest := text[at:]
	switch {
	case strings.HasPrefix(rest, "$${"):
		return part{literal: "${", size: len("$${")}, nil
	case strings.HasPrefix(rest, "${"):
		return reference(rest, at)
	}
	end := strings.Index(rest, "${")
	if end < 0 {
		return part{literal: rest, size: len(rest)}, nil
	}
	if end > 0 && rest[end-1] == '$' {
		end--
	}
	return part{literal: rest[:end], size: end}, nil
}

func reference(rest string, at int) (part, error) {
	inner, _, closed := strings.Cut(rest[len("${"):], "}")
	kind, name, _ := strings.Cut(inner, ":")
	switch {
	case !closed:
		return part{}, &SyntaxError{At: at, Why: "a reference does not end with }"}
	case kind != Env && kind != File:
		return part{}, &SyntaxError{At: at, Why: "a reference begins neither with env: nor with file:"}
	case name == "" || strings.ContainsAny(name, "\x00\r\n"):
		return part{}, &SyntaxError{At: at, Why: "a reference names nothing"}
	}
	return part{ref: Ref{Kind: kind, Name: name}, size: len(inner) + len("${}")}, nil
}
