package filestore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
)

// putBodyOf stores a body of a URL in a unit of its own and returns its name below bodies.
func putBodyOf(t *testing.T, s *Store, unit, url, text string) string {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, unit)
	if err != nil {
		t.Fatal(err)
	}
	w, err := u.Body(t.Context(), store.BodyMeta{URL: url, ContentType: "text/html"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Add(&store.Record{ID: unit, Job: crashJob, Batch: unit, Body: ref.Body, Bytes: ref.Bytes, SHA256: ref.SHA256}); err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: unit}); err != nil || !won {
		t.Fatalf("won %v, %v", won, err)
	}
	crash.WantBody(t, s, ref.Body, []byte(text))
	return strings.TrimPrefix(ref.Body, "bodies/")
}

func TestBodiesAreWhereAPersonLooks(t *testing.T) {
	large := strings.Repeat("large", 100_000)
	tests := []struct{ claim, url, text, want string }{
		{"a home page", "http://x.test/", "home", "x.test/index.html"},
		{"a page", "http://x.test/a", "a", "x.test/a.html"},
		{"a file in a folder of the same name", "http://x.test/a/b.css", "b", "x.test/a/b.css"},
		{"the same bytes again", "http://x.test/a/b.css", "b", "x.test/a/b.css"},
		{"other bytes", "http://x.test/a/b.css", "other", "x.test/a/b~SHA.css"},
		{"those again", "http://x.test/a/b.css", "other", "x.test/a/b~SHA.css"},
		{"a folder where a file is", "http://x.test/a/b.css/c.js", "c", "x.test/a_b.css_c~SHA.js"},
		{"a file in a folder", "http://x.test/d.de/e.html", "e", "x.test/d.de/e.html"},
		{"a file where a folder is", "http://x.test/d.de", "file", "x.test/d~SHA.de"},
		{"a large body", "http://x.test/large.iso", large, "x.test/large.iso"},
		{"the same large body", "http://x.test/large.iso", large, "x.test/large.iso"},
		{"another large body", "http://x.test/large.iso", large + "!", "x.test/large~SHA.iso"},
		{"one of the same size", "http://x.test/large.iso", strings.Replace(large, "l", "L", 1), "x.test/large~SHA.iso"},
		{"a large body whose folder is a file", "http://x.test/large.iso/x.iso", large, "x.test/large.iso_x~SHA.iso"},
		{"an URL without a host", "mailto:x@x.test", "mail", "01/0184183c.html"},
	}
	for claim, named := range map[string]bool{"nameless files": false, "named files": true} {
		t.Run(claim, func(t *testing.T) {
			s := openTest(t, t.TempDir(), Options{Names: NamesPath})
			s.named.Store(s.named.Load() || named)
			for i, tt := range tests {
				sum := sha256.Sum256([]byte(tt.text))
				sha := hex.EncodeToString(sum[:])
				want := strings.ReplaceAll(tt.want, "SHA", sha[:8])
				if !strings.HasPrefix(tt.url, "http") {
					want = strings.TrimPrefix(bodyName(sha, "html"), "bodies/")
				}
				if got := putBodyOf(t, s, fmt.Sprint("b", i), tt.url, tt.text); got != want {
					t.Errorf("%s: %s lies in %s, want %s", tt.claim, tt.url, got, want)
				}
			}
			wantClean(t, s)
		})
	}
}

func wantClean(t *testing.T, s *Store) {
	t.Helper()
	if got := findings(t, s, crashJob, false); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
	if left := tmpFiles(t, s, crashJob); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

func TestAJobMayHaveBothKindsOfNames(t *testing.T) {
	dir := t.TempDir()
	digest, path := openTest(t, dir, Options{}), openTest(t, dir, Options{Names: NamesPath})
	const url, text = "http://ab/x", "the same bytes"
	first, second := putBodyOf(t, digest, "b1", url, text), putBodyOf(t, path, "b2", url, text)
	third := putBodyOf(t, digest, "b3", url, text)
	if second != "ab/x.html" || first != third || first == second {
		t.Errorf("%s, %s, %s", first, second, third)
	}
	wantClean(t, digest)
	wantClean(t, path)
}

func TestWhatLiesUnderANameIsNeverReplaced(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{Names: NamesPath})
	mine := filepath.Join(s.Dir(), crashJob, "bodies", "x.test", "a.txt")
	writeAt(t, mine, "mine")
	for i, text := range []string{"five5", strings.Repeat("large", 100_000)} {
		sum := sha256.Sum256([]byte(text))
		sha := hex.EncodeToString(sum[:])
		// Under the names nearby, too: then the body is named by its digest.
		for _, mark := range []string{sha[:8], sha[:32]} {
			writeAt(t, s.bodyPath(crashJob, "bodies/x.test/a~"+mark+".txt"), "torn")
		}
		want := strings.TrimPrefix(bodyName(sha, "html"), "bodies/")
		if got := putBodyOf(t, s, fmt.Sprint("b", i), "http://x.test/a.txt", text); got != want {
			t.Errorf("%d bytes lie in %s, want %s", len(text), got, want)
		}
	}
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Errorf("what lay there is now %q, %v", data, err)
	}
}

func TestWritersOfOneNameDoNotMix(t *testing.T) {
	dir := t.TempDir()
	const writers = 16
	bodies, names := make([]string, writers), make([]string, writers)
	var wg sync.WaitGroup
	for i := range writers {
		s := openTest(t, dir, Options{Names: NamesPath, Sync: SyncOff, Worker: fmt.Sprint("w", i)})
		bodies[i] = strings.Repeat(fmt.Sprint("body ", i/2, " "), 1+i%4*20_000) // some of two writers are the same
		url := "http://x.test/a/b.html" + strings.Repeat("/c", i%3)
		wg.Go(func() { names[i] = putBodyOf(t, s, fmt.Sprint("b", i), url, bodies[i]) })
	}
	wg.Wait()
	s := openTest(t, dir, Options{})
	for i, name := range names {
		crash.WantBody(t, s, "bodies/"+name, []byte(bodies[i]))
	}
	wantClean(t, s)
}

func TestBodyNamesThatLeadOutAreRefused(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for _, body := range []string{
		"bodies", "bodies/", "bodies/x", "bodies//x/y", "bodies/x//y", "bodies/x/../../../y", "bodies/./x/y", "bodies/x/y/", "/bodies/x/y", "bodies/x/y\\z",
		"bodies/x/c:z", "bodies/x/y\x00", "bodies/x/nul", "bodies/x/y.", "bodies/x/y/" + strings.Repeat("z", 256), "bodies" + strings.Repeat("/x", 50),
		"tmp/x/y", "bodies/x/\xff",
	} {
		if r, err := s.OpenBody(t.Context(), crashJob, body); !errors.Is(err, store.ErrRecord) {
			t.Errorf("OpenBody(%q) = %v, %v", body, r, err)
		}
	}
}

func TestAPartIsNamedByItsURL(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{Names: NamesPath})
	var names []string
	for i, text := range []string{"one", "one", "two", ""} {
		p := partHeld(t, s, fmt.Sprint("r", i))
		if err := p.Begin(store.PartNote{Length: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		appendTo(t, p, text)
		ref := adopt(t, s, p, fmt.Sprint("b", i))
		names = append(names, ref.Body)
		if text != "" {
			crash.WantBody(t, s, ref.Body, []byte(text))
		}
	}
	if diff := cmp.Diff([]string{"bodies/x.test/big.iso", "bodies/x.test/big.iso", "bodies/x.test/big~3fc4ccfe.iso", ""}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	wantClean(t, s)
}

func TestOpenRefusesOtherNames(t *testing.T) {
	wantSays(t, "Open", errOf(Open(t.Context(), t.TempDir(), Options{Names: "url"})), `unknown names "url", want "digest" or "path"`)
}
