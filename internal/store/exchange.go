package store

import "time"

// Exchange is one request and its answer as they went over the wire, for stores that archive them. It is not changed
// once it was handed over.
type Exchange struct {
	Method      string
	Target      string              // of the request line: path and query
	Request     map[string][]string // as sent, Host included
	RequestBody []byte
	Status      int
	Reason      string // the reason phrase, "" when there was none (HTTP/2)
	Response    map[string][]string
	Protocol    string    // "HTTP/1.1", "HTTP/2.0"
	RemoteAddr  string    // address and port that answered, "" when unknown
	At          time.Time // when the request was sent
	// Coded says that the body as sent differs from what Write gets: it comes through ExchangeWriter.Sent as well.
	Coded bool
}

// ExchangeKeeper is a Unit of a store that may archive whole exchanges: it also wants the answers on the way (redirects)
// and those that were cut, and its body writers are ExchangeWriters.
type ExchangeKeeper interface {
	Unit
	// KeepsExchanges reports whether it does.
	KeepsExchanges() bool
}

// ExchangeWriter is a BodyWriter that keeps a body as it was sent. Where its meta says that the exchange is Coded it is
// given both forms, in any order and pieces: Sent takes what it keeps, and what Write takes is only counted and digested.
// Without Coded, what Write takes is both.
type ExchangeWriter interface {
	BodyWriter
	// Sent takes bytes of a coded body, as they were sent.
	Sent(p []byte) (int, error)
	// Cut ends a body that did not come whole, and keeps what there is. reason is one of WARC 1.1, section 5.13: "length",
	// "time", "disconnect" or "unspecified". No record refers to such a body.
	Cut(reason string) error
}
