package secrets

import (
	"encoding/json"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
)

// Hidden stands where a value was.
const Hidden = "[secret]"

const (
	// minHidden is the shortest value in bytes that is looked for: a shorter one is in every other text by chance, and
	// what is left around it would tell it.
	minHidden = 4
	// maxKnown is how many values are remembered; those that came first are forgotten first.
	maxKnown = 1024
)

// known are the values that were handed out.
type known struct {
	values   []string
	replacer atomic.Pointer[strings.Replacer]
}

// Remember has Redact look for a value that was made of secrets: a token, a field with a password in base64.
func (s *Source) Remember(value string) {
	if len(value) < minHidden {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.known.values, value) {
		return
	}
	if len(s.known.values) >= maxKnown {
		s.known.values = slices.Delete(s.known.values, 0, 1)
	}
	s.known.values = append(s.known.values, value)
	var pairs []string
	longest := slices.SortedFunc(slices.Values(s.known.values), func(a, b string) int { return len(b) - len(a) })
	for _, v := range longest { // at one place the pair that comes first wins: a value that begins another would leave its rest
		for _, spelling := range spellings(v) {
			pairs = append(pairs, spelling, Hidden)
		}
	}
	s.known.replacer.Store(strings.NewReplacer(pairs...))
}

// spellings are the ways in which messages quote a value.
func spellings(v string) []string {
	all := []string{v}
	quoted, _ := json.Marshal(v)
	for _, s := range []string{string(quoted[1 : len(quoted)-1]), url.QueryEscape(v), url.PathEscape(v)} {
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// Redact returns text with Hidden for every value that was handed out. A nil Source knows none.
func (s *Source) Redact(text string) string {
	if s == nil {
		return text
	}
	r := s.known.replacer.Load()
	if r == nil {
		return text
	}
	return r.Replace(text)
}

// Writer returns a writer that passes on to w what it is given, redacted. A value that two calls share is not found, so
// it is for writers that are given whole lines, as those of a log.
func (s *Source) Writer(w io.Writer) io.Writer {
	if s == nil {
		return w
	}
	return &redacting{source: s, to: w}
}

type redacting struct {
	source *Source
	to     io.Writer
}

// Write reports the length of what it was given.
func (r *redacting) Write(p []byte) (int, error) {
	if r.source.known.replacer.Load() == nil {
		return r.to.Write(p)
	}
	if _, err := io.WriteString(r.to, r.source.Redact(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
