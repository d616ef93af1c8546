package filestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// storedAccount is an account as it lies in accounts/UNIT.json: with what is needed to finish its commit.
type storedAccount struct {
	*store.Account
	Attempt string `json:"attempt"` // WORKER~RUN~N~COMMIT, unique for ever
	Records int    `json:"records"` // lines in the records file; 0: there is none
}

func (a *storedAccount) accountTmp() string            { return a.Attempt + "~" + a.Unit() + tmpAccount }
func (a *storedAccount) recordsTmp(unit string) string { return a.Attempt + "~" + unit + tmpRecords }
func (a *storedAccount) isOf(stem string) bool         { return strings.HasPrefix(a.Attempt, stem+"~") }

// encode leaves '&', '<' and '>' as they are, so that payloads come back as they were given.
func (a *storedAccount) encode() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(a)
	return out.Bytes(), err
}

// Account returns the account of a committed unit, or store.ErrNotFound. When it returns one, the unit is whole, and
// durable as far as the store was configured for.
func (s *Store) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	if err := checkNames(job, unit); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	a, err := s.findAccount(ctx, job, unit)
	if err != nil {
		return nil, fmt.Errorf("read account of unit %s: %w", unit, err)
	}
	return a.Account, nil
}

// findAccount reads an account and finishes the commit of its unit if its writer did not.
func (s *Store) findAccount(ctx context.Context, job, unit string) (*storedAccount, error) {
	a, fi, err := s.readAccount(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	if _, err := s.finishedRecords(job, unit, a); err != nil {
		return nil, err
	}
	err = s.sync.Settle(ctx, fi, s.accountPath(job, unit), s.jobPath(job, accountsFolder), s.jobPath(job, recordsFolder))
	if errors.Is(err, disk.ErrLost) {
		if err := s.renew(ctx, job, unit); err != nil {
			return nil, err
		}
		return a, nil
	}
	if err != nil {
		return nil, disk.Trouble("flush to disk", s.dir, err)
	}
	return a, nil
}

// renew writes the files of a committed unit once more, with the bodies that it refers to: what it lies on may be gone with
// a flush that failed.
func (s *Store) renew(ctx context.Context, job, unit string) error {
	stem, err := s.begin()
	if err != nil {
		return err
	}
	defer s.ended(stem)
	paths := []string{s.accountPath(job, unit), s.recordsPath(job, unit)}
	for r, err := range s.Records(ctx, job, unit) {
		if err != nil {
			return err
		}
		if path := s.bodyPath(job, r.Body); r.Body != "" && r.BodyOf() == job && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return s.folder.Renew(ctx, s.sync, func(n int) string {
		return s.tmpPath(job, stem+"~"+strconv.Itoa(n)+tmpBody)
	}, paths)
}

// readAccount reads an account. A unit without one costs one failing open(2).
func (s *Store) readAccount(ctx context.Context, job, unit string) (*storedAccount, os.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	path := s.accountPath(job, unit)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, store.ErrNotFound
	}
	if err != nil {
		return nil, nil, disk.Trouble("open", path, err)
	}
	defer func() { _ = f.Close() }()
	a := &storedAccount{Account: &store.Account{}}
	if err := json.NewDecoder(f).Decode(a); err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if a.V > store.AccountVersion {
		return nil, nil, fmt.Errorf("%s has version %d, this program knows %d: use a newer one",
			path, a.V, store.AccountVersion)
	}
	if a.Records > 0 && (a.Attempt == "" || a.Attempt != filepath.Base(a.Attempt)) {
		return nil, nil, fmt.Errorf("%s is damaged: attempt %.80q is no name", path, a.Attempt)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, disk.Trouble("stat", path, err)
	}
	return a, fi, nil
}

// linkAccount is the commit point: step 4 of the recipe. It says whether this account is the one now visible.
func (s *Store) linkAccount(job, unit string, a *storedAccount) (won bool, err error) {
	from, to := s.tmpPath(job, a.accountTmp()), s.accountPath(job, unit)
	err = s.folder.In(filepath.Dir(to), func() error { return os.Link(from, to) })
	if err == nil {
		return true, nil
	}
	// An error is not yet a no: over NFS an answer can be lost, and the kernel repeats the call and finds its own work.
	// Once the temporary name is gone no link can come of it any more, and what is there now tells.
	_ = disk.RemoveTmp(from)
	there, _, rerr := s.readAccount(context.Background(), job, unit)
	switch {
	case rerr == nil:
		return there.Attempt == a.Attempt, nil
	case disk.IsNoLinks(err):
		return false, disk.NoLinks(s.dir, err)
	}
	return false, disk.Trouble("link account", to, err)
}

// rollForward is step 5 of the recipe, done by the unit's writer or by whoever finds its account first. Any number of
// them may do it at once: one rename succeeds, the others find nothing to rename and the records in place. The rename
// comes before the look, because a file system without a journal may keep the rename of an earlier attempt and lose
// its account; what then lies in place is replaced.
func (s *Store) rollForward(job, unit string, a *storedAccount) error {
	if a.Records == 0 {
		return nil
	}
	from, to := s.tmpPath(job, a.recordsTmp(unit)), s.recordsPath(job, unit)
	err := disk.Rename(from, to)
	if !errors.Is(err, os.ErrNotExist) {
		return renameTrouble(from, err)
	}
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	// Nothing there: the folder is missing, or the file was renamed between the two calls.
	if err := s.folder.Make(filepath.Dir(to)); err != nil {
		return disk.Trouble("create", filepath.Dir(to), err)
	}
	err = disk.Rename(from, to)
	if errors.Is(err, os.ErrNotExist) {
		if _, err = os.Stat(to); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("its records are gone, neither %s nor %s is there: %w", to, from, os.ErrNotExist)
		}
	}
	return renameTrouble(from, err)
}

// finishedRecords finishes the commit of a unit and returns where its records are. To whoever may not write, such as an
// audit of a read-only mount, that may be where their writer left them.
func (s *Store) finishedRecords(job, unit string, a *storedAccount) (path string, err error) {
	path = s.recordsPath(job, unit)
	err = s.rollForward(job, unit, a)
	if err == nil || !disk.IsReadOnly(err) && !errors.Is(err, os.ErrPermission) {
		return path, err
	}
	for _, there := range []string{s.tmpPath(job, a.recordsTmp(unit)), path} {
		if _, serr := os.Stat(there); serr == nil {
			return there, nil
		}
	}
	return "", err
}

func renameTrouble(from string, err error) error {
	if err == nil {
		return nil
	}
	return disk.Trouble("rename records", from, err)
}
