package warc

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression is how the records of a file are compressed.
type Compression string

// The compressions.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Compressions lists them, the default first.
var Compressions = []Compression{Gzip, Zstd}

// Ext returns the ending of a file's name: ".warc.gz" or ".warc.zst".
func (c Compression) Ext() string {
	if c == Zstd {
		return ".warc.zst"
	}
	return ".warc.gz"
}

// level of gzip. Level 6 makes HTML an eighth smaller for three times the time.
const level = gzip.BestSpeed

// window of zstd, which is also the memory that a reader needs.
const window = 1 << 20

// member compresses one record at a time. It is reused: setting one up costs more than a small record.
type member struct {
	gz  *gzip.Writer
	zs  *zstd.Encoder
	in  []byte
	out appender
}

type appender struct{ b []byte }

// Write takes everything.
func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// reset begins a gzip member. The zero time would be written as some day in 2042.
func (m *member) reset(w io.Writer) {
	m.gz.Reset(w)
	m.gz.ModTime = time.Unix(0, 0)
}

var members = map[Compression]*sync.Pool{
	Gzip: {New: func() any {
		gz, err := gzip.NewWriterLevel(io.Discard, level)
		return &member{gz: must(gz, err)}
	}},
	Zstd: {New: func() any {
		// With a concurrency of one the encoder has no goroutines, so the pool may drop it without closing it.
		zs, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
		return &member{zs: must(zs, err)}
	}},
}

// must is for constants that are valid.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// maxKept is the largest scratch buffer that is kept for the next record.
const maxKept = 1 << 20

// Append appends the parts, compressed as one member, to dst.
func (c Compression) Append(dst []byte, parts ...[]byte) []byte {
	m := members[c].Get().(*member)
	defer members[c].Put(m)
	if c == Zstd {
		m.in = m.in[:0]
		for _, p := range parts {
			m.in = append(m.in, p...)
		}
		dst = m.zs.EncodeAll(m.in, dst)
		if cap(m.in) > maxKept {
			m.in = nil
		}
		return dst
	}
	m.out.b = dst
	m.reset(&m.out)
	for _, p := range parts {
		_, _ = m.gz.Write(p) // an appender takes everything
	}
	_ = m.gz.Close()
	dst, m.out.b = m.out.b, nil
	return dst
}

// Copy writes what the parts yield, size bytes in all, compressed as one member, to w.
func (c Compression) Copy(w io.Writer, size int64, parts ...io.Reader) error {
	m := members[c].Get().(*member)
	defer members[c].Put(m)
	var z io.WriteCloser = m.gz
	if c == Zstd {
		m.zs.ResetContentSize(w, size)
		defer m.zs.Reset(nil)
		z = m.zs
	} else {
		m.reset(w)
		defer m.gz.Reset(io.Discard)
	}
	n, err := io.Copy(struct{ io.Writer }{z}, io.MultiReader(parts...))
	if err == nil && n != size {
		err = fmt.Errorf("a record of %d bytes has %d: %w", size, n, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return err
	}
	return z.Close()
}

// Mark is what the last member of a unit tells its reader, each counted in bytes back from the end of the unit: where
// that member begins, where the part does that it describes, and where the unit itself does. So both ends of a unit are
// found from its end alone, and units that lie one behind another are found from the last one. In gzip it is an extra field
// of the last member, "FF" (RFC 1952, section 2.3.1.1), in zstd a skippable frame behind it (RFC 8878, section 3.1.2).
type Mark struct{ Last, Part, Whole int64 }

// The forms of a mark.
const (
	gzipHead  = "\x1f\x8b\x08\x04\x00\x00\x00\x00\x04\xff\x1c\x00FF\x18\x00" // magic, extra field of 28 bytes, 24 of them ours
	zstdFrame = "\x5e\x2a\x4d\x18\x18\x00\x00\x00"                           // skippable frame 14 of 24 bytes
	markSize  = 24
)

// AppendMarked appends the last member of a unit. Before it the unit has whole bytes, the last part of which it describes.
func (c Compression) AppendMarked(dst []byte, part, whole int64, parts ...[]byte) []byte {
	from := len(dst)
	if c == Zstd {
		dst = c.Append(dst, parts...)
		n := int64(len(dst) - from + len(zstdFrame) + markSize)
		return appendMark(append(dst, zstdFrame...), Mark{Last: n, Part: n + part, Whole: n + whole})
	}
	m := members[c].Get().(*member)
	defer members[c].Put(m)
	m.out.b = dst
	m.reset(&m.out)
	m.gz.Extra = append([]byte(gzipHead[len(gzipHead)-4:]), make([]byte, markSize)...)
	for _, p := range parts {
		_, _ = m.gz.Write(p)
	}
	_ = m.gz.Close()
	dst, m.out.b = m.out.b, nil
	n := int64(len(dst) - from)
	appendMark(dst[:from+len(gzipHead)], Mark{Last: n, Part: n + part, Whole: n + whole}) // the extra field has no checksum
	return dst
}

func appendMark(b []byte, m Mark) []byte {
	for _, n := range []int64{m.Last, m.Part, m.Whole} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// FindMark finds the mark of the unit that ends after size bytes of a file, of which tail are the last ones. It is not
// found in a tail that is shorter than the last member.
func (c Compression) FindMark(tail []byte, size int64) (Mark, bool) {
	if c == Zstd {
		at := len(tail) - markSize - len(zstdFrame)
		if at < 0 || string(tail[at:at+len(zstdFrame)]) != zstdFrame {
			return Mark{}, false
		}
		return readMark(tail[at+len(zstdFrame):], size)
	}
	for end := len(tail); end > 0; {
		at := lastIndex(tail[:end], gzipHead)
		if at < 0 {
			return Mark{}, false
		}
		if m, ok := readMark(tail[at+len(gzipHead):], size); ok && m.Last == int64(len(tail)-at) {
			return m, true
		}
		end = at + len(gzipHead) - 1
	}
	return Mark{}, false
}

func readMark(b []byte, size int64) (Mark, bool) {
	if len(b) < markSize {
		return Mark{}, false
	}
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(b[8*i:])) }
	m := Mark{Last: at(0), Part: at(1), Whole: at(2)}
	return m, 0 < m.Last && m.Last <= m.Part && m.Part <= m.Whole && m.Whole <= size
}

func lastIndex(b []byte, sep string) int {
	for at := len(b) - len(sep); at >= 0; at-- {
		if b[at] == sep[0] && string(b[at:at+len(sep)]) == sep {
			return at
		}
	}
	return -1
}
