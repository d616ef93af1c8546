package fetch

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/coding"
)

// Closing a body early reads what little may be left of it, so that the
// connection can be used again: opening another costs more than so many bytes
// or so much waiting.
const (
	drainBytes = 16 << 10
	drainTime  = 50 * time.Millisecond
)

// body is what a Response gives out: the bytes as sent, or a decoder above them.
type body struct {
	wire    wire
	decoder *coding.Reader // nil: as sent
	err     error          // what every further Read returns
}

func (b *body) open(x *exchange, answer *http.Response) {
	b.wire.x = x
	b.wire.src = answer.Body
	b.wire.length = answer.ContentLength
	b.wire.persistent = answer.ProtoMajor == 1 && !answer.Close
	b.wire.framed = answer.ContentLength >= 0 || len(answer.TransferEncoding) > 0 || answer.ProtoMajor != 1
	if answer.Body == http.NoBody || x.request.Method == http.MethodHead { // what is announced there does not come
		b.wire.err = io.EOF
		x.finish()
		return
	}
	if x.decode && answer.StatusCode != http.StatusPartialContent {
		decoder, err := coding.NewReader(answer.Header["Content-Encoding"], &b.wire, coding.Limits{Bytes: x.maxBody, Ratio: x.limits.ratio()})
		if err != nil {
			b.err = fail(Decode, "decode", "%w", err)
		}
		b.decoder = decoder
	}
}

// Read implements io.Reader. See Response.Body.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.decoder == nil {
		n, err := b.wire.Read(p)
		b.err = err
		return n, err
	}
	n, err := b.decoder.Read(p)
	if err != nil {
		b.err = b.endDecoding(err)
	}
	return n, b.err
}

// endDecoding says what the end of the decoder's output means for the body.
func (b *body) endDecoding(err error) error {
	b.release()
	if err == io.EOF {
		// The coding has its own end. The body is complete only if HTTP agrees.
		_, err = io.Copy(io.Discard, &b.wire)
		if err == nil {
			return io.EOF
		}
		return err
	}
	broken := b.wire.err
	defer b.wire.abandon()
	if broken != nil && broken != io.EOF {
		return broken
	}
	if errors.Is(err, coding.ErrTooLarge) {
		return fail(DecodeTooLarge, "decode", "%w", err)
	}
	if errors.Is(err, coding.ErrRatio) {
		return fail(DecodeRatio, "decode", "%w", err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && !b.wire.framed {
		// HTTP cannot tell where such a body ends, its coding can.
		return fail(BodyCut, "body", "the connection closed in the middle of the %s data", b.decoder.Name())
	}
	return fail(Decode, "decode", "%s: %w", b.decoder.Name(), err)
}

// release gives the decoders back to their pools.
func (b *body) release() {
	if b.decoder != nil {
		b.decoder.Release()
	}
}

var errClosed = fail(Other, "body", "read after close")

// Close implements io.Closer. It always returns nil: whether the body was
// complete, Read has said.
func (b *body) Close() error {
	if b.err == errClosed {
		return nil
	}
	b.err = errClosed
	b.wire.seen = nil
	b.release()
	b.wire.drain()
	b.wire.abandon()
	return nil
}

// wire reads a body as it was sent, within the limits of size and time.
type wire struct {
	x          *exchange
	src        io.ReadCloser
	n          int64          // bytes read so far
	length     int64          // announced, or -1
	persistent bool           // worth draining for the sake of its connection
	framed     bool           // HTTP knows where the body ends
	seen       func(p []byte) // told of everything that Read returns; may be nil
	err        error          // io.EOF or an *Error; then the exchange has ended
}

// Read implements io.Reader; after an error it returns that error again.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.read(p)
	if n > 0 && w.seen != nil {
		w.seen(p[:n])
	}
	return n, err
}

func (w *wire) read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.length > w.x.maxBody {
		return 0, w.fail(fail(BodyTooLarge, "body", "%d bytes announced, the limit is %d", w.length, w.x.maxBody))
	}
	w.x.awaitBody()
	n, err := w.src.Read(p)
	fast := w.x.restBody(n)
	w.n += int64(n)
	if over := w.n - w.x.maxBody; over > 0 {
		return n - int(over), w.fail(fail(BodyTooLarge, "body", "more than the limit of %d bytes", w.x.maxBody))
	}
	switch {
	case err == io.EOF:
		w.err = io.EOF
		w.x.finish()
	case err != nil:
		return n, w.fail(w.x.explain("body", classifyBody, err))
	case !fast:
		return n, w.fail(w.x.tooSlow())
	}
	return n, w.err
}

func (w *wire) fail(err *Error) error {
	w.err = err
	w.abandon()
	return err
}

// abandon gives up what is left of the body, and its connection with it.
func (w *wire) abandon() {
	w.src.Close() // its error would tell nothing that Read has not told
	w.x.finish()
}

// drain reads the rest of the body if it is small and already on its way.
func (w *wire) drain() {
	if w.err != nil || !w.persistent || w.length > w.n+drainBytes || w.length > w.x.maxBody {
		return
	}
	enough := time.AfterFunc(drainTime, func() { w.x.cancel(errClosed) })
	defer enough.Stop()
	_, _ = io.CopyN(io.Discard, w, drainBytes) // an error ends the connection, as without draining
}
