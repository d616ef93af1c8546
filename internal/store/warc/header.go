package warc

import (
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"
)

// Type is what a record is (section 5.5).
type Type string

// The types of records that this program writes.
const (
	Info       Type = "warcinfo"
	Response   Type = "response"
	Request    Type = "request"
	Resource   Type = "resource"
	Metadata   Type = "metadata"
	Revisit    Type = "revisit"
	Conversion Type = "conversion"
)

// The profiles of revisit records (section 6.7).
const (
	IdenticalPayload  = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
	ServerNotModified = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
)

// Content types of blocks (sections 6.3 and 8.1).
const (
	HTTPResponse = "application/http; msgtype=response"
	HTTPRequest  = "application/http; msgtype=request"
	Fields       = "application/warc-fields"
)

// ID is the UUID that names a record. The zero ID is none.
type ID [16]byte

// NewID returns a random one (RFC 9562, section 5.4). It need not be hard to guess, only unique.
func NewID() ID {
	var id ID
	for i := range 2 {
		for j, n := 0, rand.Uint64(); j < 8; j, n = j+1, n>>8 {
			id[8*i+j] = byte(n)
		}
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// append appends the form of a WARC-Record-ID field.
func (id ID) append(b []byte) []byte {
	b = append(b, "<urn:uuid:"...)
	b = hex.AppendEncode(b, id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		b = append(b, '-')
		b = hex.AppendEncode(b, part)
	}
	return append(b, '>')
}

// String returns the form of a WARC-Record-ID field: "<urn:uuid:…>".
func (id ID) String() string { return string(id.append(nil)) }

// Digest is a SHA-256. The zero Digest is none.
type Digest [32]byte

// append appends the form of a digest field.
func (d Digest) append(b []byte) []byte { return hex.AppendEncode(append(b, "sha256:"...), d[:]) }

// String returns the form of a digest field: "sha256:" and lower-case hexadecimal digits.
func (d Digest) String() string { return string(d.append(nil)) }

// Header is the header of one record. Zero values are left out.
type Header struct {
	Type          Type
	ID            ID
	Date          time.Time
	TargetURI     string
	IP            string // of the server, without port
	Protocol      string // WARC-Protocol: "h2", "http/1.1"
	ConcurrentTo  ID
	RefersTo      string // a record ID in the form of its field; read from other files, hence a string
	RefersToURI   string
	RefersToDate  time.Time
	Profile       string
	Truncated     string
	Filename      string
	BlockDigest   Digest
	PayloadDigest Digest
	Extra         []Field // of this program: other readers ignore what they do not know (section 4)
	ContentType   string
}

// Field is one named field.
type Field struct{ Name, Value string }

// dateForm has microseconds, of the nine digits that section 5.4 allows: what clocks of servers are good for.
const dateForm = "2006-01-02T15:04:05.000000Z"

// Append appends the header of a record whose block has length bytes, with the empty line that ends it.
func (h *Header) Append(b []byte, length int64) []byte {
	b = append(b, "WARC/1.1\r\nWARC-Type: "...)
	b = append(b, h.Type...)
	b = append(b, "\r\nWARC-Record-ID: "...)
	b = h.ID.append(b)
	b = append(b, "\r\nWARC-Date: "...)
	b = h.Date.UTC().AppendFormat(b, dateForm)
	b = appendURIField(b, "WARC-Target-URI", h.TargetURI)
	b = appendField(b, "WARC-IP-Address", h.IP)
	b = appendField(b, "WARC-Protocol", h.Protocol)
	if h.ConcurrentTo != (ID{}) {
		b = h.ConcurrentTo.append(append(b, "\r\nWARC-Concurrent-To: "...))
	}
	b = appendField(b, "WARC-Refers-To", h.RefersTo)
	b = appendURIField(b, "WARC-Refers-To-Target-URI", h.RefersToURI)
	if !h.RefersToDate.IsZero() {
		b = h.RefersToDate.UTC().AppendFormat(append(b, "\r\nWARC-Refers-To-Date: "...), dateForm)
	}
	b = appendField(b, "WARC-Profile", h.Profile)
	b = appendField(b, "WARC-Truncated", h.Truncated)
	b = appendField(b, "WARC-Filename", h.Filename)
	if h.BlockDigest != (Digest{}) {
		b = h.BlockDigest.append(append(b, "\r\nWARC-Block-Digest: "...))
	}
	if h.PayloadDigest != (Digest{}) {
		b = h.PayloadDigest.append(append(b, "\r\nWARC-Payload-Digest: "...))
	}
	for _, f := range h.Extra {
		b = appendField(b, f.Name, f.Value)
	}
	b = appendField(b, "Content-Type", h.ContentType)
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, length, 10)
	return append(b, "\r\n\r\n"...)
}

// End follows the block of every record.
const End = "\r\n\r\n"

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, "\r\n"...), name...), ": "...)
	return appendText(b, value)
}

func appendURIField(b []byte, name, uri string) []byte {
	if uri == "" {
		return b
	}
	b = append(append(append(b, "\r\n"...), name...), ": "...)
	return appendURI(b, uri)
}

// appendText appends a value that can neither end its line nor hold a control character: those become spaces.
func appendText(b []byte, s string) []byte {
	from := len(b)
	b = append(b, s...)
	for i := from; i < len(b); i++ {
		if c := b[i]; c < ' ' && c != '\t' || c == 0x7f {
			b[i] = ' '
		}
	}
	return b
}

// appendURI appends a URI, with what no URI holds percent-encoded (RFC 3986, section 2.1).
func appendURI(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			b = append(b, '%', digits[c>>4], digits[c&15])
			continue
		}
		b = append(b, s[i])
	}
	return b
}
