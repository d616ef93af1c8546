// Package open chooses the store drivers that URLs ask for. It is the one place that knows every driver; the rest of
// the program knows package store only.
package open

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/several"
)

// Options are what drivers take; each takes what means something to it. The zero value is a durable store of an unnamed
// worker.
type Options struct {
	// Sync is how durable a committed unit is: "batch" (also ""): it survives a loss of power; "off": it survives
	// a crash of the program, not one of the machine.
	Sync string
	// MustExist refuses a store that is not there yet, for those who only read.
	MustExist bool
	// Worker is the name of this worker, for telling temporary files apart; "" means "worker".
	Worker string
	// Names is how stores of files name bodies: "digest" (also ""): by their digest; "path": by host and path.
	Names string
	// DedupeIndex is a CDXJ file of an earlier job of the same store, or a folder of such: what stores of WARC files have
	// there already becomes a revisit record; "" = within each job only.
	DedupeIndex string
	// Software is the name and version that WARC files say they were made by; "" = no version.
	Software string
	// Stdout is what jsonl:- writes to; nil = os.Stdout. See jsonl.Options for what the program must do about SIGPIPE.
	Stdout io.Writer
	// Gone is called once when the reader of jsonl:- is gone; nil = nobody asks.
	Gone func(error)
	// Note is told what a later one of several stores did not take as it is in the first; nil = nobody asks.
	Note func(error)
}

// supported is what an error lists.
func supported() string {
	var forms []string
	for _, d := range drivers() {
		forms = append(forms, d.form)
	}
	return "supported: " + strings.Join(forms, "; ")
}

// Open opens the one store that a URL or a bare path names. A list of several is refused: who reads reads one of them.
func Open(ctx context.Context, rawURL string, o Options) (store.Store, error) {
	if err := Check(rawURL); err != nil {
		return nil, err
	}
	d, err := find(rawURL)
	if err != nil {
		return nil, err
	}
	return d.open(ctx, rawURL, o)
}

// Check refuses what Open would refuse without a look at any store.
func Check(rawURL string) error {
	if all := Split(rawURL); len(all) > 1 {
		return fmt.Errorf("open store: %d stores are named where one is read: name one of %s", len(all), redactAll(all))
	}
	return CheckURLs([]string{rawURL})
}

// Several opens the stores that a worker writes to. The first decides what is committed, and the rest get copies; of one
// it makes nothing more than that one.
func Several(ctx context.Context, urls []string, o Options) (store.Store, error) {
	if err := CheckURLs(urls); err != nil {
		return nil, err
	}
	return openAll(ctx, urls, o)
}

// CheckURLs refuses what Several would refuse without a look at any store.
func CheckURLs(urls []string) error {
	if len(urls) == 0 {
		urls = []string{""}
	}
	for i, raw := range urls {
		d, err := find(raw)
		switch {
		case err != nil:
			return err
		case d.beside && len(urls) == 1:
			return alone(raw)
		case d.beside && i == 0:
			return fmt.Errorf("open store %q: it keeps nothing, so it cannot be the first, which decides what is committed: "+
				"put it after another", redact(raw))
		case slices.Contains(urls[:i], raw):
			return twice(raw, raw)
		}
		if err := d.check(raw); err != nil {
			return err
		}
	}
	return nil
}

func alone(raw string) error {
	return fmt.Errorf("open store %q: it keeps nothing, and serves only after a store that does: name one before it", redact(raw))
}

func twice(a, b string) error {
	return fmt.Errorf("open stores: %q and %q are the same store: name it once", redact(a), redact(b))
}

func openAll(ctx context.Context, urls []string, o Options) (_ store.Store, err error) {
	var all []store.Store
	defer func() {
		if err != nil {
			for _, s := range all {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	for _, raw := range urls {
		d, err := find(raw)
		if err != nil {
			return nil, err
		}
		s, err := d.open(ctx, raw, o)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	if err := distinct(ctx, urls, all); err != nil {
		return nil, err
	}
	return several.New(several.Options{Note: o.Note}, all[0], all[1:]...), nil
}

// distinct refuses one store under two names: its own copy would find every unit there, or be its unit twice.
func distinct(ctx context.Context, urls []string, all []store.Store) error {
	seen := map[string]int{}
	for i, s := range all {
		id, err := s.Identity(ctx)
		if err != nil {
			return fmt.Errorf("identify store %s: %w", s, err)
		}
		if before, ok := seen[id]; ok {
			return twice(urls[before], urls[i])
		}
		seen[id] = i
	}
	return nil
}

// Split takes a list of stores apart: "file:out,jsonl:-". It is split only before what begins like a store's URL, for
// URLs and paths have commas of their own.
func Split(list string) []string {
	var all []string
	for {
		end := boundary(list)
		if end < 0 {
			return append(all, list)
		}
		all = append(all, list[:end])
		list = strings.TrimLeft(list[end+1:], " ")
	}
}

// boundary is where the comma is after which another store begins, -1 if there is none.
func boundary(list string) int {
	for i, c := range list {
		if c != ',' {
			continue
		}
		scheme, _, found := strings.Cut(strings.TrimLeft(list[i+1:], " "), ":")
		if _, ok := byScheme(scheme); found && ok {
			return i
		}
	}
	return -1
}

// WritesStdout reports whether one of the stores is standard output, which nothing else may then write to.
func WritesStdout(urls []string) bool {
	return slices.ContainsFunc(urls, func(raw string) bool {
		scheme, _, found := strings.Cut(raw, ":")
		return found && strings.EqualFold(scheme, "jsonl")
	})
}

// find returns the driver that a URL asks for.
func find(raw string) (driver, error) {
	if raw == "" {
		return driver{}, fmt.Errorf("open store: no store given; %s", supported())
	}
	scheme, _, found := strings.Cut(raw, ":")
	if !found || !isScheme(scheme) {
		return drivers()[0], nil
	}
	if d, ok := byScheme(scheme); ok {
		return d, nil
	}
	hint := ""
	if near := nearest(scheme); near != "" {
		hint = fmt.Sprintf(", did you mean %s:?", near)
	}
	return driver{}, fmt.Errorf("open store %q: unknown kind of store %q%s; %s", redact(raw), scheme, hint, supported())
}

func byScheme(scheme string) (driver, bool) {
	for _, d := range drivers() {
		if slices.ContainsFunc(d.schemes, func(s string) bool { return strings.EqualFold(s, scheme) }) {
			return d, true
		}
	}
	return driver{}, false
}

// isScheme tells a URL's scheme (RFC 3986, section 3.1) from a path with a colon in it; one letter is a Windows drive.
func isScheme(s string) bool {
	if len(s) < 2 {
		return false
	}
	for i, c := range s {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", c)) {
			return false
		}
	}
	return true
}

// redact hides a password and what comes behind a question mark, where keys may stand: an error of ours may be logged. A
// password may have in it what ends one for a parser, so before an @ nothing is taken for a host or a path; where that has
// a question mark, which may be of a password or of a parameter, nothing is shown but the user.
func redact(raw string) string {
	scheme, rest, slashes := "", raw, ""
	if s, r, found := strings.Cut(raw, ":"); found && isScheme(s) {
		scheme, rest = s+":", r
	}
	if r, found := strings.CutPrefix(rest, "//"); found {
		slashes, rest = "//", r
	}
	user := ""
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, rest = rest[:at], rest[at+1:]
		name := user
		if end := strings.IndexAny(user, ":/?#"); end >= 0 {
			name = user[:end]
		}
		if strings.ContainsAny(user, "?#") {
			return scheme + slashes + name + "…"
		}
		if name != user {
			name += ":xxxxx"
		}
		user = name + "@"
	}
	if place, _, found := strings.Cut(rest, "?"); found {
		rest = place + "?…"
	}
	rest, _, _ = strings.Cut(rest, "#")
	return scheme + slashes + user + rest
}

func redactAll(urls []string) string {
	shown := make([]string, len(urls))
	for i, raw := range urls {
		shown[i] = redact(raw)
	}
	return strings.Join(shown, ", ")
}
