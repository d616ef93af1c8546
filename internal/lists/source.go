package lists

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Stdin is the name of standard input among sources.
const Stdin = "-"

// maxWindow is the largest zstd window accepted: what the densest ordinary level (--ultra -22) uses.
const maxWindow = 128 << 20

// source is one list, decompressed.
type source struct {
	name   string
	file   *os.File // nil for stdin
	reader io.Reader
	free   func() // gives back the decompressor; nil if there is nothing to give back
}

// Read makes source a reader of the list's text.
func (s *source) Read(p []byte) (int, error) { return s.reader.Read(p) }

// close gives the file back; standard input is the caller's.
func (s *source) close() error {
	if s.free != nil {
		s.free()
	}
	if s.file == nil {
		return nil
	}
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("close list %s: %w", s.name, bare(err))
	}
	return nil
}

// Check finds what would keep sources from being read, before any of them is: files that do not exist or may not be
// read, and directories. All that is wrong is in the one error.
func Check(sources []string) error {
	var errs []error
	stdin := 0
	for _, name := range sources {
		if IsURL(name) {
			continue
		}
		if name != Stdin {
			errs = append(errs, checkFile(name))
			continue
		}
		if stdin++; stdin == 2 {
			errs = append(errs, errors.New(`list "-" is given twice: standard input can be read only once`))
		}
	}
	return errors.Join(errs...)
}

func checkFile(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return openError(name, err)
	}
	if info.IsDir() {
		return fmt.Errorf("list %s is a directory: name the files in it", name)
	}
	if !info.Mode().IsRegular() {
		return nil // opening a pipe may wait for its writer, and closing it would lose what it wrote
	}
	f, err := os.Open(name)
	if err != nil {
		return openError(name, err)
	}
	return f.Close()
}

// totalSize is the size of all sources together, in bytes, or 0 if one has none or cannot be seen.
func totalSize(sources []string) (total int64) {
	for _, name := range sources {
		if IsURL(name) {
			total += int64(len(name))
			continue
		}
		info, err := os.Stat(name)
		if name == Stdin || err != nil || !info.Mode().IsRegular() {
			return 0
		}
		total += info.Size()
	}
	return total
}

// IsURL reports whether a source is itself the one URL of a list, as arguments of other programs that fetch are.
func IsURL(source string) bool {
	scheme, _, ok := strings.Cut(source, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// openSource opens a list and finds out by its first bytes whether it is compressed.
func openSource(name string, stdin io.Reader, read *atomic.Int64) (*source, error) {
	s := &source{name: name}
	raw := &counter{reader: stdin, read: read}
	switch {
	case IsURL(name):
		s.name, raw.reader = "argument", strings.NewReader(name) // a URL may have a password
	case name != Stdin:
		if err := checkDirectory(name); err != nil {
			return nil, err
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, openError(name, err)
		}
		s.file, raw.reader = f, f
	}
	if raw.reader == nil {
		raw.reader = bytes.NewReader(nil)
	}
	if err := s.decompress(raw); err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

func checkDirectory(name string) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("list %s is a directory: name the files in it", name)
	}
	return nil
}

// decompress sets s.reader to the text behind raw, which its first bytes tell the format of.
func (s *source) decompress(raw io.Reader) error {
	block := bufio.NewReaderSize(raw, sniffed)
	head, err := block.Peek(4)
	if err != nil && err != io.EOF {
		return readError(s.name, 0, err)
	}
	s.reader = block
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(block)
		if err != nil {
			return readError(s.name, 0, &corrupt{"gzip", err})
		}
		s.reader = &decompressor{z, "gzip"}
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		z, err := zstd.NewReader(block, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return readError(s.name, 0, &corrupt{"zstd", err})
		}
		s.reader, s.free = &decompressor{z, "zstd"}, z.Close
	}
	return nil
}

// counter counts what is read from disk.
type counter struct {
	reader io.Reader
	read   *atomic.Int64
}

// Read reads and counts.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// decompressor marks the errors of a compressed stream as such; those of the disk below it keep their own words.
type decompressor struct {
	io.Reader
	format string
}

// Read decompresses; errors are *corrupt, those of the disk excepted.
func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	var disk *fs.PathError
	if err != nil && err != io.EOF && !errors.As(err, &disk) {
		err = &corrupt{d.format, err}
	}
	return n, err
}

// corrupt is the error of a compressed stream that is damaged or cut short.
type corrupt struct {
	format string
	cause  error
}

// Error names the format and what is wrong.
func (c *corrupt) Error() string {
	return "the " + c.format + " data is damaged or cut short: " + c.cause.Error()
}

// Unwrap returns what is wrong.
func (c *corrupt) Unwrap() error { return c.cause }

// readError words what ended a source before its end, after so many lines of it.
func readError(name string, lines int64, err error) error {
	after, advice := "", ""
	if lines > 0 {
		after = fmt.Sprintf(" after line %d", lines)
	}
	var c *corrupt
	if errors.As(err, &c) {
		advice = fmt.Sprintf(" (test it with %s -t, then fetch or make it again)", c.format)
	}
	return fmt.Errorf("read list %s%s: %w%s", title(name), after, bare(err), advice)
}

func openError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("list %s: %w: check its name", name, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("list %s: %w: make it readable for this user", name, bare(err))
	}
	return fmt.Errorf("open list %s: %w", name, bare(err))
}

// title is what messages call a source.
func title(name string) string {
	if name == Stdin {
		return "- (standard input)"
	}
	return name
}

// bare takes the operation and path off a file error, because the message names the list already.
func bare(err error) error {
	if p, ok := err.(*fs.PathError); ok {
		return p.Err
	}
	return err
}
