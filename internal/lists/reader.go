package lists

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/fetchfleet/fetchfleet/internal/rows"
)

// blockSize is how much of a list is read at a time: large enough that system calls do not count.
const blockSize = 256 << 10

// Reader reads the lines of several sources one after another. Only Progress may be called while another call runs.
type Reader struct {
	sources []string // still to be opened
	stdin   io.Reader
	maxLine int
	opts    Options

	table   rows.Source // rows that are being read instead of lines; nil if there are none
	name    string      // of the table
	src     *source     // being read; nil before the first, between two, and after the last
	buf     []byte      // src's text that was read and not yet given out is buf[pos:end]
	pos     int
	end     int
	scanned int   // bytes of buf[pos:end] known to hold no line end
	readErr error // what ended src: delivered after the lines before it
	number  int64
	ordinal int64

	read  atomic.Int64
	total int64
}

// Open prepares to read sources in order; "-" is stdin. Files are opened when their turn comes, so that a missing
// one is Next's error: Check finds it beforehand. No sources mean no lines.
func Open(sources []string, stdin io.Reader, opts Options) *Reader {
	r := &Reader{sources: sources, stdin: stdin, maxLine: opts.MaxLine, total: totalSize(sources), opts: opts}
	if r.maxLine <= 0 {
		r.maxLine = DefaultMaxLine
	}
	return r
}

// Next returns the next line that is neither blank nor a comment. At the end it returns io.EOF. Any other error ends
// one source, naming it and what to do; the call after it goes on with the next source.
//
// A plain URL costs one allocation, its string, which the caller may keep without keeping anything else.
func (r *Reader) Next() (Line, error) {
	for {
		if r.src == nil && r.table == nil {
			if err := r.openNext(); err != nil {
				return Line{}, err
			}
			continue // an empty table is none
		}
		if r.table != nil {
			line, err := r.row()
			if err == io.EOF {
				continue
			}
			return line, err
		}
		text, err := r.line()
		switch {
		case err == io.EOF:
			if err := r.closeSource(); err != nil {
				return Line{}, err
			}
			continue
		case err != nil && err != errLongLine:
			err = readError(r.src.name, r.number, err)
			_ = r.closeSource() // the read error matters, and nothing was written
			return Line{}, err
		}
		r.number++
		r.ordinal++
		if text = trim(text); err == nil && (len(text) == 0 || text[0] == '#') {
			continue
		}
		return r.parse(text, err), nil
	}
}

// parse makes a line of its text, or of errLongLine.
func (r *Reader) parse(text []byte, err error) Line {
	line := Line{Source: r.src.name, Number: r.number, Ordinal: r.ordinal}
	switch {
	case err != nil:
		line.Err = fmt.Errorf("line %d %w %s", r.number, err, size(r.maxLine))
	case r.opts.Rows != nil:
		row, err := rows.ParseObject(text)
		if line.Err = err; err == nil {
			line.Item, line.Err = r.opts.Rows.item(&row, &r.opts)
		}
	case text[0] == '{':
		line.Item, line.Err = parseItem(text, &r.opts)
	default:
		line.Item.URL = withParams(string(text), r.opts.Params, nil)
	}
	return line
}

// Progress returns how many bytes were read from the sources, as they lie on disk, and how many there are; the
// latter is 0 when unknown, as with standard input and pipes. It may be called at any time from any goroutine.
func (r *Reader) Progress() (bytesRead, bytesTotal int64) {
	return r.read.Load(), r.total
}

// Close gives back the source being read. Next must not be called after it; Close may be, again.
func (r *Reader) Close() error {
	r.sources = nil
	return errors.Join(r.closeTable(), r.closeSource())
}

func (r *Reader) openNext() error {
	if len(r.sources) == 0 {
		return io.EOF
	}
	name := r.sources[0]
	r.sources = r.sources[1:]
	src, err := openSource(name, r.stdin, &r.read)
	if err != nil {
		return err
	}
	if r.buf == nil {
		r.buf = make([]byte, blockSize)
	}
	n, err := src.first(r.buf)
	if err != nil && err != io.EOF {
		_ = src.close()
		return err
	}
	r.src, r.readErr, r.number = src, err, 0
	r.pos, r.end, r.scanned = 0, n, 0
	if bytes.HasPrefix(r.buf[:n], []byte(byteOrderMark)) {
		r.pos = len(byteOrderMark)
	}
	if r.opts.Rows != nil && !looksLikeJSON(r.buf[r.pos:n]) {
		return r.openCSV()
	}
	return nil
}

func (r *Reader) closeSource() error {
	if r.src == nil {
		return nil
	}
	src := r.src
	r.src, r.pos, r.end = nil, 0, 0
	return src.close()
}

// errLongLine is completed with the limit by Next.
var errLongLine = errors.New("is longer than")

// line returns the next line without its line end; it is valid until the next call. After the last it returns what
// ended the source: io.EOF, or the error. What stands before an error without a line end is not a line.
func (r *Reader) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.buf[r.pos+r.scanned:r.end], '\n'); i >= 0 {
			stop := r.pos + r.scanned + i
			text := r.buf[r.pos:stop]
			r.pos, r.scanned = stop+1, 0
			if len(text) > r.maxLine+1 || len(text) == r.maxLine+1 && text[r.maxLine] != '\r' {
				return nil, errLongLine
			}
			return text, nil
		}
		r.scanned = r.end - r.pos
		if r.scanned > r.maxLine+1 {
			return nil, r.skipLine()
		}
		if r.readErr != nil {
			return r.lastLine()
		}
		r.fill()
	}
}

// lastLine returns what follows the last line end, once.
func (r *Reader) lastLine() ([]byte, error) {
	text := r.buf[r.pos:r.end]
	if len(text) == 0 || r.readErr != io.EOF {
		return nil, r.readErr
	}
	r.pos, r.scanned = r.end, 0
	if len(text) > r.maxLine {
		return nil, errLongLine
	}
	return text, nil
}

// skipLine drops the rest of a line that is too long, holding one block of it at a time.
func (r *Reader) skipLine() error {
	for {
		r.pos, r.scanned = r.end, 0
		if r.readErr == nil {
			r.fill()
		}
		if i := bytes.IndexByte(r.buf[r.pos:r.end], '\n'); i >= 0 {
			r.pos += i + 1
			return errLongLine
		}
		if r.readErr == io.EOF {
			r.pos = r.end
			return errLongLine
		}
		if r.readErr != nil {
			return r.readErr
		}
	}
}

// fill reads more behind what is left, making room first: by moving it to the front, or by a larger buffer, which
// never exceeds the longest line and a block.
func (r *Reader) fill() {
	if r.pos > 0 {
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	}
	if most := r.maxLine + blockSize; r.end > len(r.buf)/2 && len(r.buf) < most {
		larger := make([]byte, min(2*len(r.buf), most))
		copy(larger, r.buf[:r.end])
		r.buf = larger
	}
	for range 100 { // a reader that gives nothing and no error is allowed to, but not for ever (io.ErrNoProgress)
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		r.readErr = err
		if n > 0 || err != nil {
			return
		}
	}
	r.readErr = io.ErrNoProgress
}

// trim drops ASCII white space around a line, the carriage return of a foreign line end included.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// size words a number of bytes for a message.
func size(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
