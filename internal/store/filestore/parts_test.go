package filestore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

const partOf = "00112233445566778899aabbccddeeff"

func partHeld(t *testing.T, s *Store, request string) store.Part {
	t.Helper()
	p, err := s.Part(t.Context(), crashJob, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Release() })
	return p
}

func appendTo(t *testing.T, p store.Part, text string) {
	t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		t.Fatal(err)
	}
}

func TestAPartBecomesABody(t *testing.T) {
	dir := t.TempDir()
	one, two := openTest(t, dir, Options{Worker: "one"}), openTest(t, dir, Options{Worker: "two"})
	text := strings.Repeat("a large body ", 50_000)
	p := partHeld(t, one, partOf)
	if err := p.Begin(store.PartNote{URL: "http://x.test/big.iso", Length: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, p, text[:300_000])
	if _, err := two.Part(t.Context(), crashJob, partOf); !errors.Is(err, store.ErrBusy) {
		t.Errorf("another worker takes what is held: %v", err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if has, err := two.HasPart(t.Context(), crashJob, partOf); !has || err != nil {
		t.Errorf("HasPart = %v, %v", has, err)
	}
	p = partHeld(t, two, partOf)
	if err := p.Stretch(store.Stretch{From: p.Size(), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, p, text[p.Size():])
	ref := adopt(t, two, p, "b1")
	r, err := one.OpenBody(t.Context(), crashJob, ref.Body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != text || ref.Bytes != int64(len(text)) || !strings.HasSuffix(ref.Body, ref.SHA256+".iso") {
		t.Errorf("the body %+v has %d bytes, %v", ref, len(got), err)
	}
	if has, err := one.HasPart(t.Context(), crashJob, partOf); has || err != nil {
		t.Errorf("after it was adopted HasPart = %v, %v", has, err)
	}
	if got := findings(t, one, crashJob, false); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
}

// adopt commits a unit of one record with the part as its body.
func adopt(t *testing.T, s *Store, p store.Part, batch string) store.BodyRef {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, batch)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := p.Adopt(t.Context(), u, store.BodyMeta{URL: "http://x.test/big.iso"})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Add(&store.Record{ID: batch, Job: crashJob, Batch: batch, Body: ref.Body, Bytes: ref.Bytes, SHA256: ref.SHA256}); err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: batch}); err != nil || !won {
		t.Fatalf("won %v, %v", won, err)
	}
	return ref
}

func TestTheSamePartTwiceIsOneBody(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	var refs []store.BodyRef
	for i, size := range []int{5, 5, 0} {
		p := partHeld(t, s, fmt.Sprint("r", i))
		if err := p.Begin(store.PartNote{Length: int64(size)}); err != nil {
			t.Fatal(err)
		}
		appendTo(t, p, strings.Repeat("x", size))
		refs = append(refs, adopt(t, s, p, fmt.Sprint("b", i)))
	}
	if refs[0] != refs[1] || refs[2].Body != "" || refs[2].SHA256 == "" {
		t.Errorf("%+v", refs)
	}
	if list, err := os.ReadDir(s.jobPath(crashJob, partsFolder)); err != nil || len(list) > 0 {
		t.Errorf("left are %v, %v", list, err)
	}
}

func TestAPartIsForUnitsOfItsJob(t *testing.T) {
	s, other := openTest(t, t.TempDir(), Options{}), openTest(t, t.TempDir(), Options{})
	p := partHeld(t, s, partOf)
	if err := p.Begin(store.PartNote{Length: 1}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, p, "x")
	for claim, begin := range map[string]func() (store.Unit, error){
		"another job":   func() (store.Unit, error) { return s.Begin(t.Context(), "other", "b1") },
		"another store": func() (store.Unit, error) { return other.Begin(t.Context(), crashJob, "b1") },
	} {
		u, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Adopt(t.Context(), u, store.BodyMeta{}); err == nil {
			t.Errorf("a unit of %s took the part", claim)
		}
		if err := u.Discard(); err != nil {
			t.Error(err)
		}
	}
	adopt(t, s, p, "b1")
}

func TestSweepAndVerifyKnowParts(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{Sync: SyncOff})
	for _, name := range []string{"held", "left"} {
		p := partHeld(t, s, name)
		if err := p.Begin(store.PartNote{Length: 10}); err != nil {
			t.Fatal(err)
		}
		appendTo(t, p, "12345")
		if name == "left" {
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []store.Finding{{Kind: "temporary", Where: "job/parts", Note: true,
		What: "bodies that are being fetched or wait for another attempt: 2, 10 bytes so far"}}
	if diff := cmp.Diff(want, findings(t, s, crashJob, true)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	for _, step := range []struct {
		age  time.Duration
		want int
	}{{time.Hour, 0}, {-time.Hour, 1}, {-time.Hour, 0}} {
		if n, err := s.Sweep(t.Context(), crashJob, step.age); n != step.want || err != nil {
			t.Errorf("Sweep of what is older than %v = %d, %v, want %d", step.age, n, err, step.want)
		}
	}
	if has, err := s.HasPart(t.Context(), crashJob, "held"); !has || err != nil {
		t.Errorf("a part that is held was swept: %v, %v", has, err)
	}
}

func TestBadPartNamesAreRefused(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for _, names := range [][2]string{{"../x", partOf}, {crashJob, "../x"}, {"", partOf}, {crashJob, ""}} {
		if p, err := s.Part(t.Context(), names[0], names[1]); !errors.Is(err, store.ErrRecord) || p != nil {
			t.Errorf("Part(%q) = %v, %v", names, p, err)
		}
		if _, err := s.HasPart(t.Context(), names[0], names[1]); !errors.Is(err, store.ErrRecord) {
			t.Errorf("HasPart(%q) = %v", names, err)
		}
	}
}
