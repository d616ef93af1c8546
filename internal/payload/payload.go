// Package payload builds what requests carry: query parameters, forms, and multipart bodies with files.
//
// It promises that the same input gives the same bytes on every machine and in every run, boundaries included, because
// the identity of a request is a digest of its body. It does not expand templates and does not choose methods.
package payload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// MaxBody is the largest body that a request may carry, in bytes: 16 MiB. Bodies wait in Redis until they are sent, so
// what is larger belongs into a place from which it is uploaded.
const MaxBody = 16 << 20

// ErrTooLarge says that a body is larger than MaxBody.
var ErrTooLarge = fmt.Errorf("the body is larger than %d MiB, which is the most that a request may carry", MaxBody>>20)

// Types of bodies, as Content-Type has them.
const (
	TypeJSON = "application/json"
	TypeForm = "application/x-www-form-urlencoded"
)

// Pair is a name with a value: a query parameter or a field of a form.
type Pair struct{ Name, Value string }

// ParsePair reads NAME=VALUE. The value may be empty and may hold more equal signs; the name may not be empty.
func ParsePair(text string) (Pair, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return Pair{}, errors.New("write NAME=VALUE")
	}
	return Pair{name, value}, nil
}

// Read returns what text stands for: the content of FILE where it is "@FILE", all of stdin where it is "@-", and else
// itself; "@@" at the beginning is a literal "@". The bytes are taken as they are, line ends included. What is larger
// than MaxBody is ErrTooLarge.
func Read(text string, stdin io.Reader) ([]byte, error) {
	name, ok := strings.CutPrefix(text, "@")
	switch {
	case !ok:
		return limited(strings.NewReader(text))
	case strings.HasPrefix(name, "@"):
		return limited(strings.NewReader(name))
	case name == "":
		return nil, errors.New("name a file after @, or write @@ for a literal @")
	case name == "-" && stdin == nil:
		return nil, errors.New("there is no standard input")
	case name == "-":
		return limited(stdin)
	}
	return ReadFile(name)
}

// ReadsStdin reports whether Read would read standard input.
func ReadsStdin(text string) bool { return text == "@-" }

// ReadFile returns the content of a file of at most MaxBody bytes.
func ReadFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, bare(err))
	}
	return readAll(name, f)
}

// ReadBelow is ReadFile for a path that a stranger may have written: what lies outside of root is refused, links that
// lead out of it included.
func ReadBelow(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %.100q: %w", name, bare(err))
	}
	return readAll(name, f)
}

func readAll(name string, f *os.File) ([]byte, error) {
	data, err := limited(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %.100s: %w", name, bare(err))
	}
	return data, nil
}

func limited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxBody+1))
	if err == nil && len(data) > MaxBody {
		return nil, ErrTooLarge
	}
	return data, err
}

// bare takes the operation and path off a file error, because the message names the file already.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
