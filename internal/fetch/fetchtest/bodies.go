package fetchtest

import (
	"bytes"
	"io"
	"net/http"
	"strconv"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// encoder returns a writer that applies a content coding, or nil for one that
// is not known; "raw" is deflate without its zlib frame.
func encoder(coding string, w io.Writer) io.WriteCloser {
	switch coding {
	case "gzip":
		return gzip.NewWriter(w)
	case "br":
		return brotli.NewWriterLevel(w, brotli.BestSpeed)
	case "deflate":
		return zlib.NewWriter(w)
	case "raw":
		raw, _ := flate.NewWriter(w, flate.DefaultCompression) // fails only for a bad level
		return raw
	case "zstd":
		z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) // fails only for bad options
		return z
	}
	return nil
}

// Encode returns data in a content coding: gzip, br, deflate (zlib), raw
// (deflate without zlib) or zstd. It panics for any other.
func Encode(coding string, data []byte) []byte {
	var b bytes.Buffer
	w := encoder(coding, &b)
	if w == nil {
		panic("fetchtest: unknown coding " + coding)
	}
	w.Write(data) // into memory: cannot fail
	w.Close()
	return b.Bytes()
}

func encoded(_ *Origin, w http.ResponseWriter, r *http.Request) {
	coding := firstSegment(r.URL.Path)
	w.Header().Set("Content-Encoding", coding)
	if r.URL.Query().Get("raw") != "" {
		coding = "raw"
	}
	writePage(w, Encode(coding, Page(r.URL.Path, number(r, "size", 0))))
}

func bomb(_ *Origin, w http.ResponseWriter, r *http.Request) {
	coding := r.URL.Query().Get("coding")
	if coding == "" {
		coding = "gzip"
	}
	e := encoder(coding, w)
	if e == nil {
		say(w, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Encoding", coding)
	w.Header().Set("Content-Type", "text/plain")
	if writeMiB(e, make([]byte, 64<<10), number(r, "mb", 64)) == nil {
		e.Close() // an error means that the client is gone
	}
}

func large(_ *Origin, w http.ResponseWriter, r *http.Request) {
	mb := number(r, "mb", 1)
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.URL.Query().Get("chunked") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(mb<<20))
	}
	writeMiB(w, Page("/large", 64<<10), mb) // an error means that the client is gone
}

// writeMiB writes block, of 64 KiB, until mb MiB are written.
func writeMiB(w io.Writer, block []byte, mb int) error {
	for range mb << 20 / len(block) {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}
