package filestore

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestOpenRefusesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wantSays(t, "Open of a file", errOf(Open(t.Context(), path, Options{})), "it is a file")
	wantSays(t, "Open below a file", errOf(Open(t.Context(), filepath.Join(path, "x"), Options{})), path)
}

func TestCheckMissesTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openTest(t, dir, Options{})
	if runtime.GOOS == "windows" {
		t.Skip("an open folder cannot be renamed here")
	}
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	wantSays(t, "Check", s.Check(t.Context()), dir+" is missing")
	_, err := tryUnit(t, s, "b1", 100)
	wantSays(t, "a unit", err, dir+" is missing")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	wantSays(t, "Check", s.Check(t.Context()), "another folder")
}

func TestReadOnlyFolder(t *testing.T) {
	if os.Getuid() == 0 || runtime.GOOS == "windows" {
		t.Skip("permissions do not stop this user; TestReadOnlyMount does it for root")
	}
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o755) })
	wantSays(t, "Check", s.Check(t.Context()), "no permission")
	_, err := tryUnit(t, s, "b1", 100)
	wantSays(t, "a unit", err, "no permission")
}

func TestTornIdentity(t *testing.T) {
	for claim, content := range map[string]string{"empty": "", "half": "0123456789abcdef", "other": "hello\n"} {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			ids := make([]string, 8)
			var wg sync.WaitGroup
			for i := range ids {
				s := openTest(t, dir, Options{})
				wg.Go(func() {
					var err error
					if ids[i], err = s.Identity(t.Context()); err != nil {
						t.Errorf("Identity: %v", err)
					}
				})
			}
			wg.Wait()
			for _, id := range ids {
				if id == "" || id != ids[0] {
					t.Fatalf("identities are %q, want one", ids)
				}
			}
		})
	}
}

func TestADamagedAccountIsNamed(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	u, account := crashUnitBegun(t, s, 1)
	if _, _, err := u.Commit(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	path := s.accountPath(crashJob, account.Batch)
	for claim, content := range map[string]string{
		"is damaged":             `{"v":1`,
		"use a newer one":        `{"v":99}`,
		"attempt \"../../x\" is": `{"v":1,"records":1,"attempt":"../../x"}`,
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.Account(t.Context(), crashJob, account.Batch)
		wantSays(t, "Account", err, claim)
		wantSays(t, "Account", err, path)
		if errors.Is(err, store.ErrNotFound) {
			t.Errorf("a damaged account is not one that is missing: %v", err)
		}
	}
}

func TestJobs(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	u, account := crashUnitBegun(t, s, 1)
	if _, _, err := u.Commit(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"someone-elses", ".git"} {
		if err := os.Mkdir(filepath.Join(s.Dir(), other), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "results.jsonl"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var got []string
	for job, err := range s.Jobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, job)
	}
	if len(got) != 1 || got[0] != crashJob {
		t.Errorf("Jobs = %q, want [%s]", got, crashJob)
	}
}

// tryUnit stores a unit with a body of n bytes and returns the unit if its Commit failed.
func tryUnit(t *testing.T, s *Store, batch string, n int) (store.Unit, error) {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, batch)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { u.Discard() })
	w, err := u.Body(t.Context(), store.BodyMeta{})
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if _, err := w.Write(make([]byte, n)); err != nil {
		return nil, err
	}
	if _, err := w.Finish(); err != nil {
		return nil, err
	}
	if err := u.Add(&store.Record{ID: "r1", Job: crashJob, Batch: batch}); err != nil {
		return nil, err
	}
	_, _, err = u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: batch})
	return u, err
}

func errOf(_ *Store, err error) error { return err }

func wantSays(t *testing.T, what string, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s = %v, want it to say %q", what, err, says)
	}
}
