package s3store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// maxAccount is the most bytes of an account that is read: a batch is small, and its records are a few KiB each.
const maxAccount = 1 << 30

// storedAccount is an account as it lies in accounts/UNIT.json. It is filestore's, with the records in it, which
// filestore passes over: so one PUT makes a unit visible whole.
type storedAccount struct {
	*store.Account
	Attempt string `json:"attempt"` // WORKER~RUN~N~COMMIT, unique for ever
	Records int    `json:"records"` // how many there are
	// Lines are the records. An account that came from a filestore has none; then they are under records.
	Lines []json.RawMessage `json:"lines,omitempty"`
}

func (a *storedAccount) isOf(stem string) bool { return strings.HasPrefix(a.Attempt, stem+"~") }

// inside reports whether the records are in the account itself.
func (a *storedAccount) inside() bool { return len(a.Lines) == a.Records }

// encode yields the account with the records, given as lines. They are not parsed again. '&', '<' and '>' stay as they
// are, so that payloads come back as they were given.
func (a *storedAccount) encode(lines []byte) ([]byte, error) {
	var out bytes.Buffer
	out.Grow(len(lines) + 1024 + 512*len(a.Entries))
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil || a.Records == 0 {
		return out.Bytes(), err
	}
	out.Truncate(out.Len() - len("}\n"))
	out.WriteString(`,"lines":[`)
	out.WriteByte('\n')
	between := ""
	for line := range bytes.Lines(lines) {
		out.WriteString(between)
		out.Write(bytes.TrimSuffix(line, []byte("\n")))
		between = ",\n"
	}
	out.WriteString("\n]}\n")
	return out.Bytes(), nil
}

// recordsFile yields what lies under records: a record a line.
func (a *storedAccount) recordsFile() []byte {
	var out bytes.Buffer
	for _, line := range a.Lines {
		out.Write(line)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// Account returns the account of a committed unit, or store.ErrNotFound. When it returns one, the unit is whole.
// It makes one call.
func (s *Store) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	if err := checkNames(job, unit); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	a, err := s.readAccount(ctx, job, unit)
	if err != nil {
		return nil, fmt.Errorf("read account of unit %s: %w", unit, err)
	}
	return a.Account, nil
}

// errDamaged says that an object was read and not understood: asking again will not help.
var errDamaged = errors.New("cannot be understood")

func (s *Store) readAccount(ctx context.Context, job, unit string) (*storedAccount, error) {
	key := s.keys.account(job, unit)
	o, err := s.c.get(ctx, key, maxAccount)
	if isMissing(err) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return decodeAccount(key, o.data)
}

func decodeAccount(key string, data []byte) (*storedAccount, error) {
	a := &storedAccount{Account: &store.Account{}}
	if err := json.Unmarshal(data, a); err != nil {
		return nil, fmt.Errorf("%s %w: %w", key, errDamaged, err)
	}
	if a.V > store.AccountVersion {
		return nil, fmt.Errorf("%s %w: it has version %d, this program knows %d: use a newer one", key, errDamaged, a.V, store.AccountVersion)
	}
	if len(a.Lines) != 0 && !a.inside() {
		return nil, fmt.Errorf("%s %w: it counts %d records and holds %d", key, errDamaged, a.Records, len(a.Lines))
	}
	return a, nil
}
