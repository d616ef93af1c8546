// Package coding undoes the content codings of HTTP bodies (RFC 9110, section 8.4): gzip, deflate, br and zstd, one on top
// of another up to a limit, with a limit on what may come out.
package coding

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Errors that callers tell apart. Others say that the data is not what its coding promises.
var (
	ErrTooLarge = errors.New("decoded body too large")
	ErrRatio    = errors.New("decoded body out of proportion")
	ErrLayers   = errors.New("too many content codings")
)

// Limits bound what each layer of a body may yield.
type Limits struct {
	Bytes int64
	// Ratio is how many times larger than what was sent it may be once it is above RatioFrom; 0 = no limit.
	Ratio int64
}

// RatioFrom is the size in bytes from which on Limits.Ratio counts: below, a small body of great regularity would be
// refused and a bomb does no harm.
const RatioFrom = 1 << 20

// maxLayers is how many content codings may lie on top of one another.
const maxLayers = 3

// maxWindow is the memory that a zstd stream may ask for (RFC 9659 section 3).
const maxWindow = 8 << 20

// decoder undoes one content coding. It may be reset for another stream any
// number of times.
type decoder interface {
	io.Reader
	reset(src *bufio.Reader) error
}

// codings maps the names of content codings (RFC 9110 section 8.4.1, RFC 7932,
// RFC 8878) to pools of their decoders.
var codings = map[string]*sync.Pool{
	"gzip":    gzipPool,
	"x-gzip":  gzipPool,
	"deflate": {New: func() any { return new(deflateDecoder) }},
	"br":      {New: func() any { return &brotliDecoder{brotli.NewReader(nothing)} }},
	"zstd":    {New: func() any { return newZstdDecoder() }},
}

var (
	gzipPool   = &sync.Pool{New: func() any { return new(gzipDecoder) }}
	bufferPool = &sync.Pool{New: func() any { return bufio.NewReaderSize(nothing, 4<<10) }}
)

// nothing is what pooled decoders read, so that they keep no body alive.
var nothing = strings.NewReader("")

// Reader undoes all codings of a body.
type Reader struct {
	io.Reader        // the innermost layer
	name      string // the codings as the header has them
	layers    []*layer
	sent      counter
	limits    Limits
}

// counter counts what was sent.
type counter struct {
	src io.Reader
	n   int64
}

// Read reads on.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.n += int64(n)
	return n, err
}

// NewReader returns a decoder for the values of a Content-Encoding header, each layer of which yields at most what limits
// allow: then its Read returns an error that wraps ErrTooLarge or ErrRatio. That holds for layers within others, too, of
// which little may come out. NewReader returns nil when there is nothing to decode or a coding is unknown, and an error
// that wraps ErrLayers for too many layers.
func NewReader(header []string, src io.Reader, limits Limits) (*Reader, error) {
	names := Names(header)
	if len(names) > maxLayers {
		return nil, fmt.Errorf("%w: %d on top of one another, the limit is %d", ErrLayers, len(names), maxLayers)
	}
	for _, name := range names {
		if codings[name] == nil {
			return nil, nil
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	s := &Reader{name: strings.Join(names, ", "), sent: counter{src: src}, limits: limits}
	s.Reader = &s.sent
	for i := len(names) - 1; i >= 0; i-- { // the last one named was applied last
		l := newLayer(codings[names[i]], s)
		s.Reader, s.layers = l, append(s.layers, l)
	}
	return s, nil
}

// Names lists the codings that the values of a Content-Encoding header name, in the order in which they were applied,
// without "identity".
func Names(header []string) []string {
	var names []string
	for _, value := range header {
		for name := range strings.SplitSeq(value, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			if name != "" && name != "identity" {
				names = append(names, name)
			}
		}
	}
	return names
}

// Name is the codings as the header has them.
func (s *Reader) Name() string { return s.name }

// Release gives decoders and buffers back. The Reader must not be read again. It is safe to call twice.
func (s *Reader) Release() {
	for _, l := range s.layers {
		l.release()
	}
	s.layers = nil
}

// layer is one coding being undone.
type layer struct {
	pool    *sync.Pool
	dec     decoder
	src     *bufio.Reader
	started bool
	whole   *Reader // of which it is one
	n       int64
}

// newLayer puts a layer upon what s yields so far.
func newLayer(pool *sync.Pool, s *Reader) *layer {
	buffered := bufferPool.Get().(*bufio.Reader)
	buffered.Reset(s.Reader)
	return &layer{pool: pool, dec: pool.Get().(decoder), src: buffered, whole: s}
}

// Read implements io.Reader. An empty body is empty in any coding.
func (l *layer) Read(p []byte) (int, error) {
	if !l.started {
		l.started = true
		if _, err := l.src.Peek(1); err != nil {
			return 0, err
		}
		if err := l.dec.reset(l.src); err != nil {
			return 0, noEOF(err)
		}
	}
	n, err := l.dec.Read(p)
	l.n += int64(n)
	limits, sent := l.whole.limits, l.whole.sent.n
	if over := l.n - limits.Bytes; over > 0 {
		return n - int(over), fmt.Errorf("%w: more than the limit of %d bytes", ErrTooLarge, limits.Bytes)
	}
	if limits.Ratio > 0 && l.n > RatioFrom && l.n/limits.Ratio > sent {
		return n, fmt.Errorf("%w: %d bytes of the first %d sent, the limit is %d times as many", ErrRatio, l.n, sent, limits.Ratio)
	}
	return n, err
}

// noEOF turns the end of the input in the middle of a header into an error.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (l *layer) release() {
	l.src.Reset(nothing)
	bufferPool.Put(l.src)
	if l.dec.reset(nil) == nil {
		l.pool.Put(l.dec)
	}
}

// gzipDecoder reads one or more gzip members (RFC 1952 section 2.2). Like
// browsers it ignores what follows them and is no member.
type gzipDecoder struct {
	zr  gzip.Reader
	src *bufio.Reader
}

func (d *gzipDecoder) reset(src *bufio.Reader) error {
	d.src = src
	if src == nil {
		return nil // zr keeps only src, which has been emptied
	}
	return d.member()
}

func (d *gzipDecoder) member() error {
	err := d.zr.Reset(d.src)
	d.zr.Multistream(false)
	return err
}

// Read reads on from one gzip member to the next (RFC 1952 section 2.2); what follows the last and is none is left.
func (d *gzipDecoder) Read(p []byte) (int, error) {
	for {
		n, err := d.zr.Read(p)
		if err != io.EOF {
			return n, err
		}
		magic, _ := d.src.Peek(2) // what is wrong with the source shows when it is read to its end
		if len(magic) < 2 || magic[0] != 0x1f || magic[1] != 0x8b {
			return n, io.EOF
		}
		if err := d.member(); err != nil {
			return n, noEOF(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// deflateDecoder reads zlib data (RFC 1950), which is what "deflate" means, or
// the bare deflate data (RFC 1951) that some servers send instead.
type deflateDecoder struct {
	io.Reader
	zlib, flate io.Reader
}

func (d *deflateDecoder) reset(src *bufio.Reader) error {
	if src == nil {
		d.Reader = nil
		return nil
	}
	head, _ := src.Peek(2)
	if len(head) == 2 && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return d.resetZlib(src)
	}
	if d.flate == nil {
		d.flate = flate.NewReader(src)
	}
	d.Reader = d.flate
	return d.flate.(flate.Resetter).Reset(src, nil)
}

func (d *deflateDecoder) resetZlib(src *bufio.Reader) (err error) {
	if d.zlib == nil {
		d.zlib, err = zlib.NewReader(src)
	} else {
		err = d.zlib.(zlib.Resetter).Reset(src, nil)
	}
	d.Reader = d.zlib
	return err
}

type brotliDecoder struct{ *brotli.Reader }

func (d *brotliDecoder) reset(src *bufio.Reader) error {
	if src == nil {
		return d.Reader.Reset(nothing)
	}
	return d.Reader.Reset(src)
}

type zstdDecoder struct{ *zstd.Decoder }

func newZstdDecoder() *zstdDecoder {
	// With a concurrency of one the decoder has no goroutines, so it may be
	// dropped by the pool without being closed. The options are constant and valid.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		panic(err)
	}
	return &zstdDecoder{d}
}

func (d *zstdDecoder) reset(src *bufio.Reader) error {
	if src == nil {
		return d.Decoder.Reset(nil)
	}
	return d.Decoder.Reset(src)
}
