// Package lists reads lists of URLs: files and standard input, plain or compressed, one URL or one JSON object a line;
// and tables, each of whose rows becomes a request by a Blueprint. A source that is itself a URL is a list of one.
//
// It promises that a bad line never stops a list, that memory does not grow with the list or with its longest line,
// and that every line is named by its source and number. It does not judge URLs beyond their being there: making
// them canonical, and refusing what is no URL, is the caller's.
package lists

import (
	"encoding/json"
	"os"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/payload"
)

// DefaultMaxLine is the longest line read when Options do not say otherwise: 1 MiB.
const DefaultMaxLine = 1 << 20

// Options of a Reader. The zero value is ready for use.
type Options struct {
	// MaxLine is the longest line accepted, in bytes after decompression and without its line end; longer ones
	// are bad lines. Zero means DefaultMaxLine.
	MaxLine int
	// Params are added to the query of every URL, before it is looked at in any way.
	Params []payload.Pair
	// Files is the folder whose files a line may name as parts of its body; nil refuses them. It is the caller's to close.
	Files *os.Root
	// Rows makes the sources tables, CSV or JSON Lines; nil means that they are lists.
	Rows *Blueprint
	// Comma separates the columns of CSV; 0 = ','.
	Comma rune
}

// Line is one line that asks for something, or that should have and cannot.
type Line struct {
	// Source is the file's name as given, or "-" for standard input.
	Source string
	// Number is the line's number in its source, from 1, blank lines and comments included; of a query's answer the row's.
	Number int64
	// Ordinal is the line's number over all sources, from 1, blank lines and comments included: the same sources
	// in the same order give every line the same ordinal again. Of a table it is the row's.
	Ordinal int64
	// Item is what the line asks for; it is empty if Err is set.
	Item Item
	// Err says what is wrong with this line, without naming source or number. Reading goes on after it.
	Err error
}

// Item is what one line asks for. Zero fields leave the choice to the job.
type Item struct {
	// URL as written, never empty; not canonical, not checked.
	URL string
	// Method is a token (RFC 9110 section 9.1), the usual ones in upper case.
	Method string
	// Header holds field names in canonical spelling and values that are safe to send (RFC 9110 section 5).
	Header map[string][]string
	// Body is sent as it is; nil means none.
	Body []byte
	// Key tells apart several requests for one URL.
	Key string
	// Meta is compact JSON that comes back in the record; nil means none.
	Meta json.RawMessage
	// Retries is the number of tries after the first, 0 to MaxRetries; nil means the job's.
	Retries *int
	// Timeout, and those of the whole request and its steps, are above 0 and at most MaxTimeout; zero means the job's.
	Timeout, MaxTime, ConnectTimeout, TLSTimeout, IdleTimeout time.Duration
}
