package tasks

import (
	"encoding/json"
	"fmt"
)

// BatchVersion is the newest batch payload that this code understands.
const BatchVersion = 1

// MaxPayload is the size in bytes at which a batch is closed: asynq's heartbeat rewrites every active payload each
// five seconds. A single request may make a payload larger.
const MaxPayload = 8 << 10

// MaxInlineBody is the size in bytes above which a request's body lives under its own key.
const MaxInlineBody = 4 << 10

// Batch is 1 to N requests of one job and one host: the payload of one asynq task.
type Batch struct {
	ID       BatchID   `json:"-"` // the task's id
	V        int       `json:"v"`
	Job      JobID     `json:"job"`
	Host     string    `json:"host"`
	Requests []Request `json:"requests"`

	// A batch of one that left another to be tried again is carried: asynq's own retry brings it back from then on.
	Carried   bool   `json:"carried,omitempty"`
	Attempts  int    `json:"attempts,omitempty"`   // attempts used up before this batch was made
	LastError string `json:"last_error,omitempty"` // for people who look at it
	Waits     int    `json:"waits,omitempty"`      // waits in a row before this batch was made
	WaitSince int64  `json:"wait_since,omitempty"` // Unix milliseconds of the first of them, by Redis
	// Generation is that of its request when the batch was made; a replay of this very batch raises it further.
	Generation int `json:"generation,omitempty"`
	// Split says that the batch came of one whose workers vanished: its request may be the cause.
	Split bool `json:"split,omitempty"`
}

// Payload writes the batch as JSON.
func (b *Batch) Payload() ([]byte, error) { return b.AppendPayload(nil) }

// AppendPayload appends the batch as JSON. It is hand-written because enqueueing spends its time here.
func (b *Batch) AppendPayload(p []byte) (_ []byte, err error) {
	p = append(p, `{"v":1,"job":"`...)
	p = append(p, b.Job...) // letters, digits, ".-_": nothing to escape
	p = append(p, `","host":`...)
	if p, err = appendString(p, b.Host); err != nil {
		return p, err
	}
	p = append(p, `,"requests":[`...)
	for i := range b.Requests {
		if i > 0 {
			p = append(p, ',')
		}
		if p, err = b.Requests[i].AppendJSON(p); err != nil {
			return p, err
		}
	}
	p = append(p, ']')
	if b.Carried {
		p = append(p, `,"carried":true`...)
	}
	if b.Split {
		p = append(p, `,"split":true`...)
	}
	p = appendInt(p, "attempts", int64(b.Attempts))
	p = appendInt(p, "generation", int64(b.Generation))
	p = appendInt(p, "waits", int64(b.Waits))
	p = appendInt(p, "wait_since", b.WaitSince)
	if b.LastError != "" {
		p = append(p, `,"last_error":`...)
		if p, err = appendString(p, b.LastError); err != nil {
			return p, err
		}
	}
	return append(p, '}'), nil
}

// NewerBatchError says that a batch was made by a newer fetchfleet.
type NewerBatchError struct {
	Batch   BatchID
	Version int
}

// Error names the batch, both versions, and the cure.
func (e *NewerBatchError) Error() string {
	return fmt.Sprintf("read batch %s: its version is %d, this fetchfleet understands up to %d: upgrade it", e.Batch, e.Version, BatchVersion)
}

// ParseBatch reads a payload. A payload of a newer version, or without what a batch must have, is an error.
func ParseBatch(id BatchID, payload []byte) (*Batch, error) {
	b := &Batch{}
	if err := json.Unmarshal(payload, b); err != nil {
		return nil, fmt.Errorf("read batch %s: %w", id, err)
	}
	switch {
	case b.V > BatchVersion:
		return nil, &NewerBatchError{Batch: id, Version: b.V}
	case b.V < 1:
		return nil, fmt.Errorf("read batch %s: it names no version", id)
	case len(b.Requests) == 0:
		return nil, fmt.Errorf("read batch %s: it holds no requests", id)
	case b.Host == "":
		return nil, fmt.Errorf("read batch %s: it names no host", id)
	}
	if err := b.Job.Validate(); err != nil {
		return nil, fmt.Errorf("read batch %s: %w", id, err)
	}
	for i := range b.Requests {
		if b.Requests[i].URL == "" {
			return nil, fmt.Errorf("read batch %s: request %d has no URL", id, i+1)
		}
	}
	b.ID = id
	return b, nil
}
