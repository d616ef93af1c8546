package lists

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// summary is "number ordinal url" or "number ordinal !error" of each line.
func summary(t *testing.T, r *Reader) (got []string, errs []error) {
	t.Helper()
	for {
		line, err := r.Next()
		if err == io.EOF {
			return got, errs
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		text := line.Item.URL
		if line.Err != nil {
			text = "!" + line.Err.Error()
		}
		got = append(got, fmt.Sprintf("%d %d %s", line.Number, line.Ordinal, text))
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstandard(t testing.TB, text string) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	return z.EncodeAll([]byte(text), nil)
}

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		claim, text string
		want        []string
	}{
		{"one a line", "http://a\nhttp://b\n", []string{"1 1 http://a", "2 2 http://b"}},
		{"the last needs no line end", "http://a\nhttp://b", []string{"1 1 http://a", "2 2 http://b"}},
		{"blank lines and comments count but do not come", "# c\n\nhttp://a\n  \n\t# d\nhttp://b", []string{"3 3 http://a", "6 6 http://b"}},
		{"a hash inside is no comment", "http://a/#x", []string{"1 1 http://a/#x"}},
		{"white space and carriage returns go", " http://a\t\r\n\vhttp://b\f\r\n", []string{"1 1 http://a", "2 2 http://b"}},
		{"a byte order mark goes", "\ufeffhttp://a\n", []string{"1 1 http://a"}},
		{"a byte order mark before JSON goes", "\ufeff{\"url\":\"http://a\"}\n", []string{"1 1 http://a"}},
		{"nothing", "", nil},
		{"only a line end", "\n", nil},
		{"a bad JSON line does not stop the list", "{\nhttp://b", []string{"1 1 !bad JSON: unexpected end of JSON input", "2 2 http://b"}},
		{"a few bytes of an old encoding are no binary", "http://a/caf\xe9-and-more-text\n", []string{"1 1 http://a/caf\xe9-and-more-text"}},
		{"a line as long as allowed", strings.Repeat("x", 64) + "\nhttp://b", []string{"1 1 " + strings.Repeat("x", 64), "2 2 http://b"}},
		{"a foreign line end does not count", strings.Repeat("x", 64) + "\r\nhttp://b", []string{"1 1 " + strings.Repeat("x", 64), "2 2 http://b"}},
		{"a longer line is bad", "http://a\n" + strings.Repeat("x", 65) + "\nhttp://b", []string{"1 1 http://a", "2 2 !line 2 is longer than 64 bytes", "3 3 http://b"}},
		{"a much longer line is bad", strings.Repeat("x", 3*blockSize) + "\nhttp://b", []string{"1 1 !line 1 is longer than 64 bytes", "2 2 http://b"}},
		{"a long last line is bad", "http://a\n" + strings.Repeat("x", 2*blockSize), []string{"1 1 http://a", "2 2 !line 2 is longer than 64 bytes"}},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			for reads, stdin := range map[string]io.Reader{
				"whole": strings.NewReader(tt.text), "by the byte": iotest.OneByteReader(strings.NewReader(tt.text)),
				"gzip": bytes.NewReader(gzipped(t, tt.text)), "zstd": bytes.NewReader(zstandard(t, tt.text)),
			} {
				r := Open([]string{Stdin}, stdin, Options{MaxLine: 64})
				got, errs := summary(t, r)
				if d := cmp.Diff(tt.want, got); d != "" || errs != nil {
					t.Errorf("%s: %s %v", reads, d, errs)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestSourcesAreReadInOrderAndRecognisedByTheirBytes(t *testing.T) {
	plain := write(t, "plain.gz", []byte("http://a\n#\nhttp://b"))
	gz := write(t, "list.txt", append(gzipped(t, "http://c\n"), gzipped(t, "http://d\n")...))
	zst := write(t, "list", zstandard(t, "\n\nhttp://e\n"))
	r := Open([]string{plain, gz, Stdin, zst}, strings.NewReader("http://in\n"), Options{})
	got, errs := summary(t, r)
	want := []string{"1 1 http://a", "3 3 http://b", "1 4 http://c", "2 5 http://d", "1 6 http://in", "3 9 http://e"}
	if d := cmp.Diff(want, got); d != "" || errs != nil {
		t.Error(d, errs)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the end: %v, want io.EOF again", err)
	}
}

func TestProgressCountsBytesOnDisk(t *testing.T) {
	text := strings.Repeat("http://a.example/x\n", 10_000)
	gz := gzipped(t, text)
	r := Open([]string{write(t, "a", gz), write(t, "b", []byte(text))}, nil, Options{})
	size := int64(len(gz) + len(text))
	if read, total := r.Progress(); read != 0 || total != size {
		t.Errorf("before: %d of %d, want 0 of %d", read, total, size)
	}
	summary(t, r)
	if read, total := r.Progress(); read != size || total != size {
		t.Errorf("after: %d of %d, want all of %d", read, total, size)
	}
	if _, total := Open([]string{Stdin}, strings.NewReader(text), Options{}).Progress(); total != 0 {
		t.Errorf("total of standard input = %d, want 0", total)
	}
}

func TestABadSourceIsNamedAndTheNextIsRead(t *testing.T) {
	good := write(t, "good", []byte("http://good\n"))
	long := gzipped(t, strings.Repeat("http://a.example/\n", 100_000))
	for _, tt := range []struct {
		claim, path string
		want        string
	}{
		{"missing", filepath.Join(t.TempDir(), "none"), "file does not exist: check its name"},
		{"a directory", t.TempDir(), "is a directory: name the files in it"},
		{"a NUL", write(t, "bin", []byte("http://a\nELF\x00\x01")), "looks like a binary file (byte 0x00 at offset 12): expected text, gzip or zstd"},
		{"noise without a NUL", write(t, "bin", bytes.Repeat([]byte("\x89\x01ab"), 50)), "(byte 0x89 at offset 0)"},
		{"a zip archive", write(t, "a.zip", []byte("PK\x03\x04 and so on")), "looks like a zip archive: expected text"},
		{"UTF-16", write(t, "u.txt", []byte("\xff\xfeh\x00t\x00")), "looks like UTF-16 text, not UTF-8"},
		{"a binary inside gzip", write(t, "b.gz", gzipped(t, "a\x00b")), "(byte 0x00 at offset 1)"},
		{"gzip cut short", write(t, "cut.gz", long[:len(long)/2]), "the gzip data is damaged or cut short: unexpected EOF (test it with gzip -t,"},
		{"a gzip header alone", write(t, "head.gz", long[:5]), "the gzip data is damaged or cut short"},
		{"zstd damaged", write(t, "bad.zst", []byte("\x28\xb5\x2f\xfdxxxxxxxxxxxxxxxx")), "the zstd data is damaged or cut short"},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			got, errs := summary(t, Open([]string{tt.path, good}, nil, Options{}))
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want) || !strings.Contains(errs[0].Error(), tt.path) {
				t.Errorf("errors %q, want one with the file's name and %q", errs, tt.want)
			}
			if len(got) == 0 || !strings.HasSuffix(got[len(got)-1], "http://good") {
				t.Errorf("the next source was not read: %q", got)
			}
			for _, l := range got {
				if strings.HasSuffix(l, "!") || !strings.HasSuffix(l, "http://good") && !strings.HasSuffix(l, "http://a.example/") {
					t.Errorf("half a line was given out: %q", l)
				}
			}
		})
	}
}

func TestAReadErrorIsReportedAfterTheLinesBeforeIt(t *testing.T) {
	broken := errors.New("the pipe burst")
	in := io.MultiReader(strings.NewReader("http://a\nhttp://b\nhttp://ha"), iotest.ErrReader(broken))
	got, errs := summary(t, Open([]string{Stdin}, in, Options{}))
	if d := cmp.Diff([]string{"1 1 http://a", "2 2 http://b"}, got); d != "" {
		t.Error(d)
	}
	if len(errs) != 1 || !errors.Is(errs[0], broken) || errs[0].Error() != "read list - (standard input) after line 2: the pipe burst" {
		t.Errorf("errors %q", errs)
	}
}

func TestCheckFindsWhatCannotBeRead(t *testing.T) {
	good, dir, none := write(t, "good", nil), t.TempDir(), filepath.Join(t.TempDir(), "none")
	if err := Check([]string{good, Stdin, good}); err != nil {
		t.Errorf("good sources: %v", err)
	}
	err := Check([]string{good, dir, none, Stdin, Stdin})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("err = %v, want fs.ErrNotExist in it", err)
	}
	for _, want := range []string{dir + " is a directory", none + ": file does not exist", "given twice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func TestALongLineDoesNotGrowMemory(t *testing.T) {
	text := io.MultiReader(strings.NewReader("http://a\n"), io.LimitReader(endless{}, 64<<20), strings.NewReader("\nhttp://b\n"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, errs := summary(t, Open([]string{Stdin}, text, Options{}))
	runtime.ReadMemStats(&after)
	want := []string{"1 1 http://a", "2 2 !line 2 is longer than 1 MiB", "3 3 http://b"}
	if d := cmp.Diff(want, got); d != "" || errs != nil {
		t.Error(d, errs)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("allocated %d MiB for a line of 64 MiB", grown>>20)
	}
}

// endless is a line that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestAReaderThatGivesNothingIsGivenUp(t *testing.T) {
	_, errs := summary(t, Open([]string{Stdin}, stalled{}, Options{}))
	if len(errs) != 1 || !errors.Is(errs[0], io.ErrNoProgress) {
		t.Errorf("errors %q, want io.ErrNoProgress", errs)
	}
}

type stalled struct{}

func (stalled) Read([]byte) (int, error) { return 0, nil }

func TestCloseInTheMiddle(t *testing.T) {
	r := Open([]string{write(t, "a.zst", zstandard(t, strings.Repeat("http://a\n", 1000)))}, nil, Options{})
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}
