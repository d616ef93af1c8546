package warcstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// What the parent tells a child that is to die with a part in its hands.
const (
	partDir = "WARCSTORE_PART_DIR"
	partAt  = "WARCSTORE_PART_AT" // "half" or "adopted"
)

const (
	partOf  = "00112233445566778899aabbccddeeff"
	partURL = "http://x.test/big.iso"
)

// stretchOf is the exchange that brought the bytes of a part from one on.
func stretchOf(from, size int) store.Stretch {
	e := &store.Exchange{
		Method: "GET", Target: "/big.iso", Request: map[string][]string{"Host": {"x.test"}}, Status: 200, Reason: "OK", Protocol: "HTTP/1.1",
		RemoteAddr: "192.0.2.1:80", At: testTime.Add(time.Duration(from)),
		Response: map[string][]string{"Content-Length": {fmt.Sprint(size - from)}, "Content-Type": {"application/x-iso9660-image"}},
	}
	if from > 0 {
		e.Status, e.Reason = 206, "Partial Content"
		e.Request["Range"] = []string{fmt.Sprintf("bytes=%d-", from)}
		e.Response["Content-Range"] = []string{fmt.Sprintf("bytes %d-%d/%d", from, size-1, size)}
	}
	return store.Stretch{From: int64(from), At: e.At, Exchange: e}
}

func held(t testing.TB, s *Store, request string) store.Part {
	t.Helper()
	p, err := s.Part(context.Background(), testJob, request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Release() })
	return p
}

// download fills a part with data that came in pieces, each ending at one of cuts and the last with the data. Every piece
// is fetched by another worker.
func download(t testing.TB, dir, request string, data []byte, cuts ...int) store.Part {
	t.Helper()
	p := held(t, openTest(t, dir, Options{}), request)
	n := store.PartNote{URL: partURL, ETag: `"1"`, Length: int64(len(data)), Stretches: []store.Stretch{stretchOf(0, len(data))}}
	if err := p.Begin(n); err != nil {
		t.Fatal(err)
	}
	for _, cut := range cuts {
		writePart(t, p, data[p.Size():cut])
		if err := p.Release(); err != nil {
			t.Fatal(err)
		}
		p = held(t, openTest(t, dir, Options{}), request)
		if p.Size() != int64(cut) {
			t.Fatalf("%d bytes are kept, want %d", p.Size(), cut)
		}
		if err := p.Stretch(stretchOf(cut, len(data))); err != nil {
			t.Fatal(err)
		}
	}
	writePart(t, p, data[p.Size():])
	return p
}

func writePart(t testing.TB, p store.Part, data []byte) {
	t.Helper()
	if _, err := p.Write(data); err != nil {
		t.Fatal(err)
	}
}

var isoMeta = store.BodyMeta{URL: partURL, ContentType: "application/x-iso9660-image"}

// adopt commits a unit of one record with the part as its body.
func adopt(t testing.TB, s *Store, p store.Part, batch string) *store.Record {
	t.Helper()
	u, a, _, err := beginUnit(t, s, batch)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := p.Adopt(context.Background(), u, isoMeta)
	if err != nil {
		t.Fatal(err)
	}
	r := record(batch, 0, answer{url: partURL, status: 200}, ref)
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded})
	if _, won, err := u.Commit(context.Background(), a); err != nil || !won {
		t.Fatalf("won %v, %v", won, err)
	}
	return r
}

// shape is a record as the reader of package warc sees it.
type shape struct {
	Type, Status, Truncated string
	Payload                 string // its digest
	Concurrent              []string
}

func sumOf(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// shapes reads the records of a file that are no metadata. IDs are told by the number of the record.
func shapes(t testing.TB, path string) (list []shape) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := warc.NewReader(f)
	defer r.Close()
	r.Verify = true
	ids := map[string]string{}
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		block, err := io.ReadAll(rec)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Type() == warc.Metadata || rec.Type() == warc.Info {
			continue
		}
		ids[rec.Get("WARC-Record-ID")] = fmt.Sprint(len(list))
		s := shape{Type: string(rec.Type()), Truncated: rec.Get("WARC-Truncated")}
		if head, payload, ok := strings.Cut(string(block), "\r\n\r\n"); ok && s.Type != "resource" {
			line, _, _ := strings.Cut(head, "\r\n")
			s.Status = strings.Fields(line)[1]
			block = []byte(payload)
		}
		s.Payload = sumOf(block)
		for _, id := range rec.Header["Warc-Concurrent-To"] {
			s.Concurrent = append(s.Concurrent, ids[id])
		}
		list = append(list, s)
	}
}

func TestAPartBecomesRecords(t *testing.T) {
	data := append(text(1, 2<<20), random(2, 1<<20)...)
	none := sumOf(nil)
	for claim, tt := range map[string]struct {
		cuts  []int
		want  []shape
		index int // lines of CDXJ
	}{
		"in one exchange: its response": {want: []shape{
			{Type: "response", Status: "200", Payload: sumOf(data)}, {Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"0"}},
		}},
		"in three: each as it came and the whole": {cuts: []int{700_000, 700_000 + 1<<20}, want: []shape{
			{Type: "response", Status: "200", Truncated: "disconnect", Payload: sumOf(data[:700_000])},
			{Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"0"}},
			{Type: "response", Status: "206", Truncated: "disconnect", Payload: sumOf(data[700_000 : 700_000+1<<20])},
			{Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"2"}},
			{Type: "response", Status: "206", Payload: sumOf(data[700_000+1<<20:])},
			{Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"4"}},
			{Type: "resource", Payload: sumOf(data), Concurrent: []string{"0", "2", "4"}},
		}},
		"with one that brought nothing": {cuts: []int{5, 5}, want: []shape{
			{Type: "response", Status: "200", Truncated: "disconnect", Payload: sumOf(data[:5])},
			{Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"0"}},
			{Type: "response", Status: "206", Truncated: "disconnect", Payload: none},
			{Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"2"}},
			{Type: "response", Status: "206", Payload: sumOf(data[5:])},
			{Type: "request", Status: "/big.iso", Payload: none, Concurrent: []string{"4"}},
			{Type: "resource", Payload: sumOf(data), Concurrent: []string{"0", "2", "4"}},
		}},
	} {
		for _, compress := range []string{"gzip", "zstd"} {
			t.Run(claim+", "+compress, func(t *testing.T) {
				dir := t.TempDir()
				s := openTest(t, dir, Options{Compress: compress})
				storeUnit(t, s, "before", answer{url: "http://x.test/", status: 200, body: []byte("first")})
				p := download(t, dir, partOf, data, tt.cuts...)
				if _, err := s.Part(t.Context(), testJob, partOf); !errors.Is(err, store.ErrBusy) {
					t.Errorf("another worker takes what is held: %v", err)
				}
				r := adopt(t, s, p, "b1")
				wantBody(t, s, r, data)
				file := s.unitPath(testJob, "b1", warc.Compression(compress))
				if diff := cmp.Diff(tt.want, shapes(t, file)); diff != "" {
					t.Errorf("records (-want +got):\n%s", diff)
				}
				if compress == "gzip" {
					t.Run("warcio", func(t *testing.T) { wantWarcio(t, file, tt.want) })
				}
				if has, err := s.HasPart(t.Context(), testJob, partOf); has || err != nil {
					t.Errorf("after it was adopted HasPart = %v, %v", has, err)
				}
				wantSound(t, s)
				if err := s.Compact(t.Context(), testJob); err != nil {
					t.Fatal(err)
				}
				wantBody(t, s, r, data)
				wantSound(t, s)
				wantOneCapture(t, s, r)
			})
		}
	}
}

// wantWarcio demands that warcio sees the same records, whole.
func wantWarcio(t *testing.T, file string, want []shape) {
	t.Helper()
	n := 0
	for _, got := range warcioReads(t, []string{file}) {
		if got.Got != got.Size || !got.BlockOK || !got.PayloadOK {
			t.Errorf("warcio reads %+v", got)
		}
		if got.Type == "metadata" {
			continue
		}
		if n >= len(want) || got.Type != want[n].Type || got.Truncated != want[n].Truncated || got.Decoded != "" && got.Decoded != want[n].Payload {
			t.Fatalf("record %d: warcio reads %+v", n, got)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("warcio reads %d records, want %d", n, len(want))
	}
}

// wantOneCapture demands that the index has the body's URL once: what replays is the whole, not a piece.
func wantOneCapture(t *testing.T, s *Store, r *store.Record) {
	t.Helper()
	paths, err := s.Packed(t.Context(), testJob)
	if err != nil || len(paths) != 2 || paths[0] != stemPath(paths[0])+wantKind(t, s).Ext() || paths[1] != stemPath(paths[0])+cdxjExt {
		t.Fatalf("packed are %q, %v", paths, err)
	}
	lines, err := os.ReadFile(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	var got []warc.Capture
	for line := range strings.Lines(string(lines)) {
		if c, _, ok := warc.ParseCDXJ([]byte(line)); ok && c.URL == partURL {
			got = append(got, c)
		}
	}
	if len(got) != 1 || got[0].SHA256 != r.SHA256 || got[0].MIME != isoMeta.ContentType {
		t.Errorf("the index has %+v, want one capture of all bytes", got)
	}
}

func wantKind(t *testing.T, s *Store) warc.Compression {
	t.Helper()
	kind, err := s.kind(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return kind
}

func TestTheSamePartTwiceIsARevisit(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	data := random(4, 300_000)
	first := adopt(t, s, download(t, dir, "r1", data), "b1")
	second := adopt(t, s, download(t, dir, "r2", data), "b2")
	resumed := adopt(t, s, download(t, dir, "r3", data, 1000), "b3")
	for _, r := range []*store.Record{first, second, resumed} {
		wantBody(t, s, r, data)
	}
	if first.Body != second.Body || resumed.Body == first.Body {
		t.Errorf("bodies %q, %q, %q", first.Body, second.Body, resumed.Body)
	}
	got := shapes(t, s.unitPath(testJob, "b2", warc.Gzip))
	if len(got) != 2 || got[0].Type != "revisit" {
		t.Errorf("records %+v", got)
	}
	wantSound(t, s)
}

func TestAPartOfNothingHasNoBody(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	wantBody(t, s, adopt(t, s, download(t, dir, partOf, nil), "b1"), nil)
	wantSound(t, s)
}

func TestAPartIsForUnitsOfItsJob(t *testing.T) {
	dir := t.TempDir()
	s, other := openTest(t, dir, Options{}), openTest(t, t.TempDir(), Options{})
	p := download(t, dir, partOf, []byte("x"))
	for claim, begin := range map[string]func() (store.Unit, error){
		"another job":   func() (store.Unit, error) { return s.Begin(t.Context(), "other", "b1") },
		"another store": func() (store.Unit, error) { return other.Begin(t.Context(), testJob, "b1") },
	} {
		u, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Adopt(t.Context(), u, isoMeta); err == nil {
			t.Errorf("a unit of %s took the part", claim)
		}
		if err := u.Discard(); err != nil {
			t.Error(err)
		}
	}
	wantBody(t, s, adopt(t, s, p, "b1"), []byte("x"))
}

// An adoption that fails half way leaves the unit as it was and the part where it is.
func TestAnAdoptionThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	data := random(5, 1<<20)
	p := download(t, dir, partOf, data, 1000)
	u, _, _, err := beginUnit(t, s, "b1")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 20, 40, 60, 80, 100} {
		if _, err := p.Adopt(&failing{Context: t.Context(), after: n}, u, isoMeta); !errors.Is(err, context.Canceled) {
			t.Fatalf("Adopt = %v", err)
		}
		if size := u.(*unit).Size(); size != 0 {
			t.Errorf("after %d reads the unit has %d bytes", n, size)
		}
	}
	if err := u.Discard(); err != nil {
		t.Fatal(err)
	}
	wantBody(t, s, adopt(t, s, p, "b1"), data)
	wantSound(t, s)
}

// failing is a context that ends when it was asked so often.
type failing struct {
	context.Context
	after int
}

func (f *failing) Err() error {
	if f.after--; f.after < 0 {
		return context.Canceled
	}
	return nil
}

func TestSweepAndVerifyKnowParts(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{Sync: SyncOff})
	for _, name := range []string{"held", "left"} {
		p := held(t, s, name)
		if err := p.Begin(store.PartNote{Length: 10}); err != nil {
			t.Fatal(err)
		}
		writePart(t, p, []byte("12345"))
		if name == "left" {
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []store.Finding
	if err := s.Verify(t.Context(), testJob, true, func(f store.Finding) { got = append(got, f) }); err != nil {
		t.Fatal(err)
	}
	want := []store.Finding{{Kind: "temporary", Where: filepath.Join(s.dir, testJob, partsFolder), Note: true,
		What: "bodies that are being fetched or wait for another attempt: 2, 10 bytes so far"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	for _, step := range []struct {
		age  time.Duration
		want int
	}{{time.Hour, 0}, {-time.Hour, 1}, {-time.Hour, 0}} {
		if n, err := s.Sweep(t.Context(), testJob, step.age); n != step.want || err != nil {
			t.Errorf("Sweep of what is older than %v = %d, %v, want %d", step.age, n, err, step.want)
		}
	}
	if has, err := s.HasPart(t.Context(), testJob, "held"); !has || err != nil {
		t.Errorf("a part that is held was swept: %v, %v", has, err)
	}
}

func TestBadPartNamesAreRefused(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for _, names := range [][2]string{{"../x", partOf}, {testJob, "../x"}, {"", partOf}, {testJob, ""}} {
		if p, err := s.Part(t.Context(), names[0], names[1]); !errors.Is(err, store.ErrRecord) || p != nil {
			t.Errorf("Part(%q) = %v, %v", names, p, err)
		}
		if _, err := s.HasPart(t.Context(), names[0], names[1]); !errors.Is(err, store.ErrRecord) {
			t.Errorf("HasPart(%q) = %v", names, err)
		}
	}
}

const partSize = 3 << 20

// partChild dies with half of a part written, or with the whole adopted and not committed.
func partChild(dir string) int {
	t := &quietT{}
	s, err := Open(context.Background(), dir, Options{Worker: "child", Sync: SyncOff})
	if err != nil {
		return 1
	}
	data := random(6, partSize)
	p := download(t, dir, partOf, data[:partSize], 1<<20)
	u, err := s.Begin(context.Background(), testJob, "b1")
	if os.Getenv(partAt) == "adopted" && err == nil {
		_, err = p.Adopt(context.Background(), u, isoMeta)
	}
	fmt.Println(err)
	select {} // killed while it holds
}

func TestAHolderThatIsKilledLosesNothingThatIsKept(t *testing.T) {
	for at, want := range map[string]bool{"held": true, "adopted": false} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), partDir+"="+dir, partAt+"="+at)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			s := openTest(t, dir, Options{Sync: SyncOff})
			other, busy := s.Part(t.Context(), testJob, partOf)
			if busy == nil {
				other.Release()
			}
			cmd.Process.Kill()
			cmd.Wait()
			if line != "<nil>\n" || err != nil {
				t.Fatalf("the child says %q, %v", line, err)
			}
			if errors.Is(busy, store.ErrBusy) != want {
				t.Errorf("while the child lives Part = %v", busy)
			}
			if has, err := s.HasPart(t.Context(), testJob, partOf); has != want || err != nil {
				t.Errorf("HasPart = %v, %v, want %v", has, err, want)
			}
			wantSound(t, s)
			if _, err := s.Account(t.Context(), testJob, "b1"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a unit that was not committed: %v", err)
			}
			data := random(6, partSize)
			p := held(t, s, partOf)
			if want != (p.Size() == partSize) {
				t.Errorf("%d bytes are kept", p.Size())
			}
			if !want {
				p.Release()
				p = download(t, dir, partOf, data)
			}
			wantBody(t, s, adopt(t, s, p, "b1"), data)
			if n, err := s.Sweep(t.Context(), testJob, -time.Hour); err != nil || (n > 0) == want {
				t.Errorf("Sweep = %d, %v", n, err)
			}
			wantSound(t, s)
		})
	}
}
