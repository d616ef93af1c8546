package fetchtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// resumable serves a body that can be asked for in ranges, and breaks off each answer after so many bytes of it.
func resumable(o *Origin, w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	seed := number(r, "seed", 1)
	w.Header().Set("Content-Type", "application/octet-stream")
	modified := time.Time{}
	switch query.Get("by") {
	case "date":
		modified = time.Date(2026, 1, seed%28+1, 0, 0, 0, 0, time.UTC)
	case "nothing":
	default:
		w.Header().Set("Etag", strconv.Quote(fmt.Sprint("seed-", seed)))
	}
	limit := int64(1) << 62
	if every := number(r, "every", 0); every > 0 {
		limit = int64(every) << 10
	}
	http.ServeContent(&metered{ResponseWriter: w, o: o, left: limit}, r, "", modified, Resumable(seed, int64(number(r, "kb", 1024))<<10))
}

// metered counts what is sent of a body, and breaks off after so many bytes.
type metered struct {
	http.ResponseWriter
	o    *Origin
	left int64
}

// Write sends what may be sent.
func (m *metered) Write(p []byte) (int, error) {
	cut := int64(len(p)) > m.left
	if cut {
		p = p[:m.left]
	}
	n, err := m.ResponseWriter.Write(p)
	m.left -= int64(n)
	m.o.sent.Add(int64(n))
	if cut && err == nil {
		_ = http.NewResponseController(m.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// BodyBytes is how many bytes of bodies were sent by /resumable.
func (o *Origin) BodyBytes() int64 { return o.sent.Load() }

// Resumable is the body that /resumable?seed=S serves, of so many bytes.
func Resumable(seed int, size int64) *io.SectionReader {
	return io.NewSectionReader(blocks(seed), 0, size)
}

// blocks is bytes without end that can be read from anywhere.
type blocks int

// ReadAt reads the bytes at an offset: each KiB comes from a generator of its own.
func (b blocks) ReadAt(p []byte, off int64) (int, error) {
	var block [1 << 10]byte
	for n := 0; n < len(p); {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], uint64(b))
		binary.LittleEndian.PutUint64(key[8:], uint64(off+int64(n))>>10)
		rand.NewChaCha8(key).Read(block[:])
		n += copy(p[n:], block[(off+int64(n))&1023:])
	}
	return len(p), nil
}
