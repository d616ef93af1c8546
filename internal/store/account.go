package store

import "encoding/json"

// Fate is what an account says of one request.
type Fate string

// The fates.
const (
	Recorded   Fate = "recorded" // its record is in this unit
	ToRetry    Fate = "retry"    // it left as a batch of its own, due later
	HandedBack Fate = "back"     // not done here: the rest of a batch given back, or a redirect to another host
)

// Account says what became of every request of one batch, and which batches follow from it. The ledger is moved
// forward from committed accounts only, so whoever finds one can finish what its writer began.
type Account struct {
	V          int     `json:"v"`
	Job        string  `json:"job"`
	Batch      string  `json:"batch"` // without generation; the unit's name is Unit()
	Generation int     `json:"generation,omitempty"`
	Worker     string  `json:"worker"`
	Delivery   string  `json:"delivery"` // unique to one attempt at this batch
	Entries    []Entry `json:"entries"`  // one per request
	Children   []Child `json:"children,omitempty"`
}

// AccountVersion is the version of Account that this code writes.
const AccountVersion = 1

// Entry is what an account says of one request.
type Entry struct {
	ID       string  `json:"id"`
	Fate     Fate    `json:"fate"`
	Outcome  Outcome `json:"outcome,omitempty"`  // when recorded
	Class    string  `json:"class,omitempty"`    // error class, when not ok
	Bytes    int64   `json:"bytes,omitempty"`    // decoded bytes of its body; 0 where it is an earlier one
	Attempts int     `json:"attempts,omitempty"` // used up so far
	Error    string  `json:"error,omitempty"`    // what happened, where the outcome is not ok
	// Unchanged says that the body is an earlier one: the origin answered 304.
	Unchanged bool `json:"unchanged,omitempty"`
	// Request is the request itself, opaque to the store, kept where the outcome is not ok so that it can be
	// taken again from the store alone.
	Request json.RawMessage `json:"request,omitempty"`
}

// Child is a batch that follows from this one. Its payload is opaque to the store.
type Child struct {
	ID       string          `json:"id"`
	Requests int             `json:"requests"`
	Due      int64           `json:"due,omitempty"` // Unix milliseconds; 0 = at once
	Payload  json.RawMessage `json:"payload"`
}

// Unit returns the name under which a batch's unit is stored: the batch, with ".G" for a replay.
func (a *Account) Unit() string { return UnitName(a.Batch, a.Generation) }
