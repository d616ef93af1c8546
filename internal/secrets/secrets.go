// Package secrets resolves references to secrets, ${env:NAME} and ${file:PATH}, where they are needed and nowhere else.
//
// It promises that only what its operator allows is read, that a value never stands in an error, and that texts which
// happen to hold a value it has handed out can be cleaned of it. It keeps no secret longer than it has to know it again,
// and does not protect the memory of its process.
package secrets

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// What a worker may resolve unless its operator says otherwise.
const (
	DefaultEnv = "FLEET_SECRET_*"
	DefaultDir = "/run/secrets"
)

// MaxSize is the largest secret in bytes: a chain of certificates is a few KiB, and each request may carry one.
const MaxSize = 64 << 10

// Options say what may be resolved. The zero value allows what DefaultEnv and DefaultDir name.
type Options struct {
	// Env are patterns for names of environment variables, in which * stands for any characters; nil = DefaultEnv.
	Env []string
	// Dirs are folders whose files may be read, also through links that do not lead out of them; nil = DefaultDir.
	Dirs []string
	// Own are references that may be resolved besides, because who wrote them is the operator.
	Own []Ref
	// Lookup reads the environment; nil = os.LookupEnv.
	Lookup func(name string) (string, bool)
	// Now is the clock; nil = time.Now.
	Now func() time.Time
}

// Source resolves references. It is safe for use by many goroutines.
type Source struct {
	opts Options
	own  map[Ref]bool

	mu    sync.Mutex
	files map[string]read
	known known
}

// read is a file's content as it was.
type read struct {
	value string
	at    time.Time
}

// fresh is for how long a file is not read again: thousands of requests a second may ask for one, and a secret that was
// changed is in use a second later.
const fresh = time.Second

// New returns a Source. A pattern that cannot be, or a folder that is not absolute, is an error; one that is not there
// is none, as it may come later.
func New(o Options) (*Source, error) {
	if o.Env == nil {
		o.Env = []string{DefaultEnv}
	}
	if o.Dirs == nil {
		o.Dirs = []string{DefaultDir}
	}
	if o.Lookup == nil {
		o.Lookup = os.LookupEnv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, pattern := range o.Env {
		if _, err := path.Match(pattern, ""); err != nil || strings.TrimSpace(pattern) == "" {
			return nil, fmt.Errorf("pattern %q: write a name, or FLEET_SECRET_*", pattern)
		}
	}
	for i, dir := range o.Dirs {
		abs, err := filepath.Abs(dir)
		if err != nil || dir == "" {
			return nil, fmt.Errorf("folder %q: name a folder", dir)
		}
		o.Dirs[i] = abs
	}
	s := &Source{opts: o, own: map[Ref]bool{}, files: map[string]read{}}
	for _, r := range o.Own {
		s.own[r] = true
	}
	return s, nil
}

// Error says that a reference could not be resolved. It never holds a value.
type Error struct {
	Ref Ref
	Why error // ErrRefused, ErrMissing or what went wrong
}

// What can be wrong with a reference; the message of an Error says more.
var (
	// ErrRefused says that this process may not resolve it.
	ErrRefused = errors.New("this worker may not resolve it")
	// ErrMissing says that there is no such variable or file here, or that it is empty.
	ErrMissing = errors.New("it is not there")
)

// Error names the reference and what is wrong.
func (e *Error) Error() string { return fmt.Sprintf("secret %s: %v", e.Ref, e.Why) }

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Why }

// Resolve returns text with each reference replaced by its value, and $${ by ${. The error is an *Error where a
// reference cannot be resolved, else a *SyntaxError.
func (s *Source) Resolve(text string) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	var b strings.Builder
	for part, err := range parts(text) {
		if err != nil {
			return "", err
		}
		if part.ref == (Ref{}) {
			b.WriteString(part.literal)
			continue
		}
		value, err := s.value(part.ref)
		if err != nil {
			return "", &Error{Ref: part.ref, Why: err}
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// value reads one secret and remembers it for Redact.
func (s *Source) value(r Ref) (value string, err error) {
	switch r.Kind {
	case Env:
		value, err = s.env(r)
	case File:
		value, err = s.file(r)
	}
	if err == nil && value == "" {
		err = fmt.Errorf("%w: it is empty", ErrMissing)
	}
	if err == nil && len(value) > MaxSize {
		err = fmt.Errorf("it is larger than %d KiB", MaxSize>>10)
	}
	if err != nil {
		return "", err
	}
	s.Remember(value)
	return value, nil
}

func (s *Source) env(r Ref) (string, error) {
	allowed := s.own[r]
	for _, pattern := range s.opts.Env {
		if ok, _ := path.Match(pattern, r.Name); ok {
			allowed = true
		}
	}
	if !allowed {
		return "", fmt.Errorf("%w: --secret-env allows %s", ErrRefused, strings.Join(s.opts.Env, ", "))
	}
	value, ok := s.opts.Lookup(r.Name)
	if !ok {
		return "", fmt.Errorf("%w: the environment has no such variable", ErrMissing)
	}
	return trim(value), nil
}

// trim takes the line break off that editors and echo leave at the end of a file.
func trim(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r") }
