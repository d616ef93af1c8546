package warc

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/textproto"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Errors that callers tell apart.
var (
	// ErrTorn says that the input ends in the middle of a record.
	ErrTorn = errors.New("torn: the file ends in the middle of a record")
	// ErrDamaged says that the input is not what WARC promises.
	ErrDamaged = errors.New("damaged")
	// ErrDigest says that a record does not have the digest it names. It comes with ErrDamaged.
	ErrDigest = errors.New("digest differs")
)

// maxHeader is the most bytes that the header of a record may have; a URL is the only thing in it that can be long.
const maxHeader = 1 << 20

// Reader reads records one after another, from an input compressed record by record.
type Reader struct {
	Verify bool // whether the end of a record checks its digests, where it has any

	src    *bufio.Reader
	count  counter
	gz     *gzip.Reader
	zs     *zstd.Decoder
	body   *bufio.Reader // what a member holds
	record *Record       // the last one that Next returned
	err    error         // the first one; final
}

// counter counts what was read from the input; what src holds of it is not consumed yet.
type counter struct {
	r   io.Reader
	n   int64
	err error // that ended it
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

const bufferSize = 32 << 10

var readers = sync.Pool{New: func() any {
	return &Reader{src: bufio.NewReaderSize(nil, bufferSize), body: bufio.NewReaderSize(nil, 4<<10)}
}}

// NewReader returns a reader of r, whose first byte has offset 0. Close gives its buffers back.
func NewReader(r io.Reader) *Reader {
	z := readers.Get().(*Reader)
	z.Verify, z.record, z.err = false, nil, nil
	z.count = counter{r: r}
	z.src.Reset(&z.count)
	return z
}

var errClosed = errors.New("the reader is closed")

// Close gives the buffers back. Neither the reader nor its records may be used any more.
func (r *Reader) Close() {
	if r.err == errClosed {
		return
	}
	r.err, r.record = errClosed, nil
	r.src.Reset(nil)
	r.body.Reset(nil)
	r.count.r = nil
	if r.zs == nil || r.zs.Reset(nil) == nil {
		readers.Put(r)
	}
}

// Record is one record being read. Read yields its block.
type Record struct {
	Header map[string][]string // canonical names
	Offset int64               // of its first byte in the input
	Length int64               // of its member, as compressed; known after Finish
	Size   int64               // of its block

	r       *Reader
	left    int64
	block   hash.Hash // nil where there is nothing to verify
	payload *payload
	done    bool
}

// Get returns the first value of a named field, in whatever letters.
func (rec *Record) Get(name string) string {
	return textproto.MIMEHeader(rec.Header).Get(name)
}

// Type returns what the record is.
func (rec *Record) Type() Type { return Type(rec.Get("WARC-Type")) }

// offset is how much of the input was consumed.
func (r *Reader) offset() int64 { return r.count.n - int64(r.src.Buffered()) }

// Next finishes the record before and returns the next one, or io.EOF where the input ends with a whole one. Any other
// error is final and wraps ErrTorn, ErrDamaged or the error of the input.
func (r *Reader) Next() (*Record, error) {
	if r.record != nil && r.err == nil {
		if err := r.record.Finish(); err != nil {
			return nil, err
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	rec, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	r.record = rec
	return rec, nil
}

func (r *Reader) next() (*Record, error) {
	rec, err := r.member()
	if err == io.EOF {
		return nil, io.EOF
	}
	if err == nil {
		err = rec.readHeader()
	}
	if err != nil {
		return nil, r.fail(r.offsetOf(rec), err)
	}
	return rec, nil
}

func (r *Reader) offsetOf(rec *Record) int64 {
	if rec == nil {
		return r.offset()
	}
	return rec.Offset
}

// fail tells the ways in which an input can fail. What lies in the middle of a file may still have been torn, by a writer
// that appended behind it; the caller can tell by where it is.
func (r *Reader) fail(offset int64, err error) error {
	switch atEnd := r.count.err == io.EOF && r.src.Buffered() < 8; { // a Peek of up to 8 leaves what there is
	case r.count.err != nil && r.count.err != io.EOF:
		return fmt.Errorf("record at offset %d: %w", offset, r.count.err)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("record at offset %d: %w", offset, err)
	case errors.Is(err, io.ErrUnexpectedEOF) && atEnd:
		return fmt.Errorf("record at offset %d: %w", offset, ErrTorn)
	}
	return fmt.Errorf("record at offset %d: %w: %w", offset, ErrDamaged, err)
}

// member begins the next member.
func (r *Reader) member() (*Record, error) {
	for {
		magic, err := r.src.Peek(4)
		if len(magic) == 0 && err == io.EOF {
			return nil, io.EOF
		}
		if err != nil {
			return nil, noEOF(err)
		}
		rec := &Record{Offset: r.offset(), r: r}
		switch {
		case magic[0] == 0x1f && magic[1] == 0x8b:
			return rec, r.openGzip()
		case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			return rec, r.openZstd()
		case isSkippable(magic):
			if err := r.skipFrame(); err != nil {
				return rec, err
			}
		default:
			return rec, fmt.Errorf("%w: neither a gzip member nor a zstd frame", ErrDamaged)
		}
	}
}

func (r *Reader) openGzip() (err error) {
	if r.gz == nil {
		r.gz = new(gzip.Reader)
	}
	if err = r.gz.Reset(r.src); err != nil {
		return noEOF(err)
	}
	r.gz.Multistream(false)
	r.body.Reset(r.gz)
	return nil
}

func (r *Reader) openZstd() (err error) {
	if r.zs == nil {
		// With a concurrency of one the decoder has no goroutines.
		r.zs, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return err
		}
	}
	if err := r.zs.Reset(&frame{src: r.src}); err != nil {
		return err
	}
	r.body.Reset(r.zs)
	return nil
}

func (r *Reader) skipFrame() error {
	head, err := r.src.Peek(8)
	if err != nil {
		return noEOF(err)
	}
	size := int64(head[4]) | int64(head[5])<<8 | int64(head[6])<<16 | int64(head[7])<<24
	_, err = io.CopyN(io.Discard, r.src, 8+size)
	return noEOF(err)
}

// readHeader reads version and named fields.
func (rec *Record) readHeader() error {
	lines := lineReader{r: rec.r.body, left: maxHeader}
	first, err := lines.next()
	if err != nil {
		return err
	}
	if v := string(first); v != "WARC/1.1" && v != "WARC/1.0" {
		return fmt.Errorf("%w: a record begins with %.20q, want WARC/1.1", ErrDamaged, v)
	}
	rec.Header = make(map[string][]string, 12)
	for {
		line, err := lines.next()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || !isToken(name) {
			return fmt.Errorf("%w: %.40q is no named field", ErrDamaged, line)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		rec.Header[name] = append(rec.Header[name], strings.TrimSpace(value))
	}
	rec.Size, err = strconv.ParseInt(rec.Get("Content-Length"), 10, 64)
	if err != nil || rec.Size < 0 {
		return fmt.Errorf("%w: Content-Length is %.40q", ErrDamaged, rec.Get("Content-Length"))
	}
	rec.left = rec.Size
	rec.expect()
	return nil
}

// lineReader reads lines up to a limit.
type lineReader struct {
	r    *bufio.Reader
	left int
}

// next returns a line without its end; it is valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	var long []byte
	for {
		part, err := l.r.ReadSlice('\n')
		if l.left -= len(part); l.left < 0 {
			return nil, fmt.Errorf("%w: the header has more than %d bytes", ErrDamaged, maxHeader)
		}
		if err == bufio.ErrBufferFull {
			long = append(long, part...)
			continue
		}
		if err != nil {
			return nil, noEOF(err)
		}
		if long != nil {
			part = append(long, part...)
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r")), nil
	}
}

// expect prepares to verify the digests that the record names.
func (rec *Record) expect() {
	if !rec.r.Verify {
		return
	}
	if strings.HasPrefix(rec.Get("WARC-Block-Digest"), "sha256:") {
		rec.block = sha256.New()
	}
	if strings.HasPrefix(rec.Get("WARC-Payload-Digest"), "sha256:") && rec.Type() != Revisit {
		rec.payload = &payload{sum: sha256.New(), begun: !strings.HasPrefix(rec.Get("Content-Type"), "application/http")}
	}
}

// Read reads the block.
func (rec *Record) Read(p []byte) (int, error) {
	if rec.r.err != nil {
		return 0, rec.r.err
	}
	if rec.left == 0 {
		return 0, io.EOF
	}
	n, err := rec.r.body.Read(p[:min(int64(len(p)), rec.left)])
	rec.left -= int64(n)
	if rec.block != nil {
		rec.block.Write(p[:n])
	}
	if rec.payload != nil {
		rec.payload.write(p[:n])
	}
	if err == nil || err == io.EOF && rec.left == 0 {
		return n, nil
	}
	if err == io.EOF { // the member is whole, as its checksum says, and yet too short
		err = fmt.Errorf("%w: the block ends %d bytes before its Content-Length", ErrDamaged, rec.left)
	}
	rec.r.err = rec.r.fail(rec.Offset, err)
	return n, rec.r.err
}

// Finish reads what is left of the record, checks that it ends as it should, and sets Length. Next calls it.
func (rec *Record) Finish() error {
	r := rec.r
	if rec.done || r.err != nil {
		return r.err
	}
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{rec}); err != nil {
		return err
	}
	rec.done = true
	err := r.end()
	if err == nil {
		err = rec.verify()
	}
	if err != nil {
		r.err = r.fail(rec.Offset, err)
		return r.err
	}
	rec.Length = r.offset() - rec.Offset
	return nil
}

// end reads the two empty lines behind a block and the end of the member, with its checksum.
func (r *Reader) end() error {
	var end [len(End) + 1]byte
	n, err := 0, error(nil)
	for n < len(end) && err == nil {
		var m int
		m, err = r.body.Read(end[n:])
		n += m
	}
	switch {
	case err == io.EOF && string(end[:n]) == End:
		return nil
	case err == nil || err == io.EOF:
		return fmt.Errorf("%w: the block is followed by %q", ErrDamaged, end[:n])
	}
	return err
}

func (rec *Record) verify() error {
	if rec.block != nil && !sameDigest(rec.block, rec.Get("WARC-Block-Digest")) {
		return fmt.Errorf("%w: %w of the block", ErrDamaged, ErrDigest)
	}
	if rec.payload != nil && !sameDigest(rec.payload.sum, rec.Get("WARC-Payload-Digest")) {
		return fmt.Errorf("%w: %w of the payload", ErrDamaged, ErrDigest)
	}
	return nil
}

func sameDigest(h hash.Hash, field string) bool {
	return strings.EqualFold(strings.TrimPrefix(field, "sha256:"), hex.EncodeToString(h.Sum(nil)))
}

// payload digests what follows the head of an HTTP message.
type payload struct {
	sum   hash.Hash
	begun bool
	match int // how much of the empty line was seen
}

func (p *payload) write(b []byte) {
	for i := 0; !p.begun && i < len(b); i++ {
		switch b[i] {
		case End[p.match]:
			p.match++
		case '\r':
			p.match = 1
		default:
			p.match = 0
		}
		if p.match == len(End) {
			p.begun = true
			b = b[i+1:]
			i = -1
		}
	}
	if p.begun {
		p.sum.Write(b)
	}
}

// noEOF says that the input ended where it should not have.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
