package export

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// WARCOptions say where WARC files go and what they hold.
type WARCOptions struct {
	Options
	Dir  string // folder, which is there; what is written must not be there
	Name string // files are NAME-00000.warc.gz and so on, their index is NAME.cdxj
	// Split is how many bytes a file has at least before the next one begins; 0: a billion.
	Split int64
	// OpenBody opens the body of a record, decoded.
	OpenBody func(ctx context.Context, r *store.Record) (io.ReadCloser, error)
	Now      func() time.Time // nil: time.Now
}

func (o *WARCOptions) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// WriteWARC writes the records of a source with their bodies as WARC 1.1, gzip record by record, and a sorted CDXJ index,
// and returns the names of the files. It writes into Dir as it goes: a caller that wants all or nothing gives a folder of
// its own. After an error what is there is not whole.
//
// Of each request that was answered there is a response record, rebuilt from the record's headers and the decoded body:
// Content-Encoding, Transfer-Encoding and a Content-Length that is not that of the body stand there as X-Archive-Orig-…,
// as other archives do it. An answer 304 to a conditional request is a revisit record (section 6.7.2 of the standard); one
// whose body nobody kept is marked with WARC-Truncated. Of every request there is a metadata record, whose one field
// has the JSON of its record. Payload digests are those of the records; a body that has another is an error.
func WriteWARC(ctx context.Context, from Source, o WARCOptions) (files []string, err error) {
	e := &warcEncoder{o: o, index: sorter{dir: o.Dir}}
	defer e.abort()
	if err := e.open(); err != nil {
		return nil, err
	}
	if err := pass(ctx, e, from, o.Options); err != nil {
		return nil, err
	}
	if err := e.close(); err != nil {
		return nil, fmt.Errorf("write %s: %w", WARC, err)
	}
	return e.files, nil
}

// warcSplit is the size of a file that the WARC standard recommends (annex B).
const warcSplit = 1_000_000_000

// warcEncoder writes one file after another.
type warcEncoder struct {
	o     WARCOptions
	files []string
	index sorter

	file *os.File
	out  *bufio.Writer
	at   int64 // bytes written to file
	buf  []byte
}

// Write counts, so that the index can tell where a member begins.
func (e *warcEncoder) Write(p []byte) (int, error) {
	n, err := e.out.Write(p)
	e.at += int64(n)
	return n, err
}

// open begins a file with its warcinfo.
func (e *warcEncoder) open() error {
	name := fmt.Sprintf("%s-%05d%s", e.o.Name, len(e.files), warc.Gzip.Ext())
	f, err := os.OpenFile(filepath.Join(e.o.Dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	e.files = append(e.files, name)
	e.file, e.out, e.at = f, bufio.NewWriterSize(f, 256<<10), 0
	info := "software: " + cmp.Or(e.o.CreatedBy, "fetchfleet") + "\r\nformat: WARC File Format 1.1\r\n" +
		"conformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/\r\nisPartOf: " + e.o.Name + "\r\n"
	h := warc.Header{Type: warc.Info, ID: warc.NewID(), Date: e.o.now(), Filename: name, ContentType: warc.Fields}
	return e.member(&h, []byte(info))
}

// end makes a file durable.
func (e *warcEncoder) end() error {
	f := e.file
	if f == nil {
		return nil
	}
	e.file = nil
	err := e.out.Flush()
	if err == nil {
		err = f.Sync()
	}
	return cmp.Or(err, f.Close())
}

// abort closes what an error left open.
func (e *warcEncoder) abort() {
	if e.file != nil {
		_ = e.file.Close()
	}
	e.index.abort()
}

func (e *warcEncoder) close() error {
	if err := e.end(); err != nil {
		return err
	}
	name := e.o.Name + ".cdxj"
	e.files = append(e.files, name)
	return e.index.writeTo(filepath.Join(e.o.Dir, name))
}

// member writes a record whose block is in memory.
func (e *warcEncoder) member(h *warc.Header, block []byte) error {
	h.BlockDigest = sha256.Sum256(block)
	e.buf = h.Append(e.buf[:0], int64(len(block)))
	_, err := e.Write(warc.Gzip.Append(nil, e.buf, block, []byte(warc.End)))
	return err
}

func (e *warcEncoder) encode(ctx context.Context, r *store.Record) error {
	if e.at >= cmp.Or(e.o.Split, warcSplit) {
		if err := e.end(); err != nil {
			return err
		}
		if err := e.open(); err != nil {
			return err
		}
	}
	answer, err := e.answer(ctx, r)
	if err != nil {
		return err
	}
	block, err := store.AppendRecord([]byte(recordField), r)
	if err != nil {
		return err
	}
	h := warc.Header{Type: warc.Metadata, ID: warc.NewID(), Date: r.FetchedAt, TargetURI: targetOf(r), ContentType: warc.Fields}
	if answer != (warc.ID{}) {
		h.RefersTo = answer.String()
	}
	return e.member(&h, append(block, "\r\n"...))
}

// recordField is the one field of a metadata record, whose value is JSON, as in a warc store: tools that make indexes pass
// over records of that type, and not over JSON.
const recordField = "fetchfleet-record: "

// answer writes the response or revisit record of a request and returns its id; none where nobody answered.
func (e *warcEncoder) answer(ctx context.Context, r *store.Record) (warc.ID, error) {
	if r.Status == 0 {
		return warc.ID{}, nil
	}
	x := &store.Exchange{Status: r.Status, Response: r.Headers, Protocol: r.Protocol, RemoteAddr: r.RemoteAddr}
	h := warc.Header{Type: warc.Response, ID: warc.NewID(), Date: r.FetchedAt, TargetURI: targetOf(r), IP: warc.IP(x),
		Protocol: warc.Protocol(x), ContentType: warc.HTTPResponse}
	c := warc.Capture{URL: h.TargetURI, At: r.FetchedAt, MIME: mimeOf(r), Status: r.Status, SHA256: r.SHA256, Offset: e.at}
	var err error
	switch {
	case r.Unchanged:
		h.Type, h.Profile, h.RefersToURI, c.MIME = warc.Revisit, warc.ServerNotModified, h.TargetURI, warc.RevisitMIME
		h.PayloadDigest, _ = digestOf(r.SHA256)
		err = e.member(&h, warc.AppendResponseHead(nil, x))
	case r.Body == "" && r.Bytes > 0:
		h.Truncated, c.SHA256 = "unspecified", ""
		err = e.member(&h, warc.AppendResponseHead(nil, x))
	default:
		err = e.response(ctx, &h, x, r)
	}
	if err != nil {
		return warc.ID{}, err
	}
	c.Length = e.at - c.Offset
	return h.ID, e.index.add(warc.AppendCDXJ(nil, &c, 0, e.files[len(e.files)-1]))
}

// response writes a response record, its body streamed.
func (e *warcEncoder) response(ctx context.Context, h *warc.Header, x *store.Exchange, r *store.Record) error {
	body := io.NopCloser(io.Reader(strings.NewReader("")))
	if r.Body != "" {
		var err error
		if body, err = e.o.OpenBody(ctx, r); err != nil {
			return err
		}
	}
	defer func() { _ = body.Close() }()
	want, known := digestOf(r.SHA256)
	h.PayloadDigest = want
	x.Response = decodedHeaders(r.Headers, r.Bytes)
	head := warc.AppendResponseHead(nil, x)
	e.buf = h.Append(e.buf[:0], int64(len(head))+r.Bytes)
	got := sha256.New()
	size := int64(len(e.buf)+len(head)+len(warc.End)) + r.Bytes
	err := warc.Gzip.Copy(e, size, bytes.NewReader(e.buf), bytes.NewReader(head), digested(ctx, body, got), strings.NewReader(warc.End))
	if err != nil {
		return fmt.Errorf("body %s: %w", r.Body, err)
	}
	if sum := got.Sum(nil); known && !bytes.Equal(sum, want[:]) {
		return fmt.Errorf("body %s is damaged: its SHA-256 is %x, that of the record %s", r.Body, sum, r.SHA256)
	}
	return nil
}

// digested reads r into a hash as well, until ctx is done.
func digested(ctx context.Context, r io.Reader, h hash.Hash) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		_, _ = h.Write(p[:n]) // a hash takes everything
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// decodedHeaders are those of an answer whose body stands there decoded. What they said of the body as sent is kept under
// names that no reader acts upon.
func decodedHeaders(headers map[string][]string, size int64) map[string][]string {
	length := strconv.FormatInt(size, 10)
	sent := slices.DeleteFunc([]string{"Content-Encoding", "Transfer-Encoding", "Content-Length"}, func(name string) bool {
		values, ok := headers[name]
		return !ok || name == "Content-Length" && slices.Equal(values, []string{length})
	})
	decoded := maps.Clone(headers)
	if decoded == nil {
		decoded = map[string][]string{}
	}
	for _, name := range sent {
		decoded["X-Archive-Orig-"+name] = headers[name]
		delete(decoded, name)
	}
	decoded["Content-Length"] = []string{length}
	return decoded
}

// targetOf is the URL that answered, or that should have.
func targetOf(r *store.Record) string { return cmp.Or(r.FinalURL, r.URL) }

// mimeOf is the media type alone.
func mimeOf(r *store.Record) string {
	mime, _, _ := strings.Cut(r.ContentType, ";")
	return strings.ToLower(strings.TrimSpace(mime))
}

func digestOf(sha string) (d warc.Digest, ok bool) {
	n, err := hex.Decode(d[:], []byte(sha[:min(len(sha), 2*len(d))]))
	if err != nil || n != len(d) || len(sha) != 2*len(d) {
		return warc.Digest{}, false
	}
	return d, true
}
