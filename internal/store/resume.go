package store

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"
)

// ErrBusy says that a part is in the hands of somebody who is alive.
var ErrBusy = errors.New("in other hands")

// Resumer is a Store that keeps the beginning of a large body whose transfer was cut, so that another attempt, by any
// worker, goes on from there.
type Resumer interface {
	Store
	// Part takes what is kept under a request's id into the caller's hands; an empty part where there is nothing. While
	// one has it others get ErrBusy. A holder that dies loses nothing that Size has counted after its last Sync.
	Part(ctx context.Context, job, request string) (Part, error)
	// HasPart reports whether something is kept under a request's id.
	HasPart(ctx context.Context, job, request string) (bool, error)
}

// Part is the beginning of a body as it was sent, in one holder's hands. It is used by one goroutine.
type Part interface {
	// Note is what was kept with the bytes. The zero note belongs to an empty part.
	Note() PartNote
	// Size is how many bytes are kept.
	Size() int64
	// Write appends. The first error is final: the part must be released.
	io.Writer
	// Begin drops whatever is kept, and starts over with a note.
	Begin(n PartNote) error
	// Stretch notes that the bytes from here on come from another exchange.
	Stretch(s Stretch) error
	// Release ends the holding and keeps the part for another attempt. Its Size may shrink to what the driver can keep
	// (whole pieces of a multipart upload). It is safe after Adopt and Drop, where it does nothing.
	Release() error
	// Open reads the part from its beginning, while it is held.
	Open() (io.ReadCloser, error)
	// Adopt makes the part, which must be whole and not coded, a body of a unit of the same store, and ends the holding.
	// The unit's commit decides whether it becomes visible.
	Adopt(ctx context.Context, u Unit, meta BodyMeta) (BodyRef, error)
	// Drop removes the part and ends the holding.
	Drop() error
}

// PartNote says what the bytes of a part are of. It is kept with them, as JSON.
type PartNote struct {
	URL          string    `json:"url"` // that answered
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	Length       int64     `json:"length"` // of the whole, as sent
	Coding       string    `json:"coding,omitempty"`
	Stretches    []Stretch `json:"stretches"`
}

// Coded reports whether the Content-Encoding changes bytes: identity, which nobody should send, does not (RFC 9110,
// section 8.4.1).
func (n PartNote) Coded() bool { return n.Coding != "" && !strings.EqualFold(n.Coding, "identity") }

// Stretch is the bytes of a part that came in one exchange: from From to where the next one begins.
type Stretch struct {
	From     int64     `json:"from"`
	At       time.Time `json:"at"`
	Exchange *Exchange `json:"exchange,omitempty"`
}
