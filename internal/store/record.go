package store

import (
	"encoding/json"
	"time"
)

// Outcome is what became of a request. The values are a public contract.
type Outcome string

// The outcomes.
const (
	OK        Outcome = "ok"         // a 2xx answer, whole
	HTTPError Outcome = "http_error" // a final answer other than 2xx; its body is kept
	Failed    Outcome = "failed"     // no answer
	Skipped   Outcome = "skipped"    // not fetched, or not kept, by policy
)

// Outcomes lists every outcome in the order in which people read them.
var Outcomes = []Outcome{OK, HTTPError, Failed, Skipped}

// Record is the stored account of one outcome: exactly one per request and generation. Its JSON fields are a public
// contract: they are only added to.
type Record struct {
	ID          string              `json:"id"`
	Job         string              `json:"job"`
	Batch       string              `json:"batch"`
	Generation  int                 `json:"generation"` // 0, and one more for each replay; the highest is the record
	URL         string              `json:"url"`        // canonical, as enqueued
	FinalURL    string              `json:"final_url,omitempty"`
	Method      string              `json:"method"`
	Outcome     Outcome             `json:"outcome"`
	Status      int                 `json:"status,omitempty"`
	Error       *RecordError        `json:"error,omitempty"`
	Attempts    int                 `json:"attempts"`
	Headers     map[string][]string `json:"headers,omitempty"` // of the answer
	ContentType string              `json:"content_type,omitempty"`
	// Charset is the encoding of a body that is text, by the Encoding standard's name; "" where nothing tells it. The body
	// itself is as it came.
	Charset string `json:"charset,omitempty"`
	Bytes   int64  `json:"bytes"` // of the decoded body
	SHA256  string `json:"sha256,omitempty"`
	Body    string `json:"body,omitempty"` // path of the body, relative to the job's folder
	// Unchanged says that the origin answered 304 to a conditional request (RFC 9110, section 13.1): Bytes, SHA256 and
	// Body are those of the earlier body, which lies in the job that BodyJob names.
	Unchanged bool   `json:"unchanged,omitempty"`
	BodyJob   string `json:"body_job,omitempty"` // job in whose folder Body is, "" = Job
	// Resumed is how often the transfer of the body was cut and went on from there.
	Resumed    int             `json:"resumed,omitempty"`
	FetchedAt  time.Time       `json:"fetched_at"`
	ElapsedMS  float64         `json:"elapsed_ms"` // of the last exchange, whole
	Timings    *Timings        `json:"timings,omitempty"`
	Protocol   string          `json:"protocol,omitempty"`
	Insecure   bool            `json:"insecure,omitempty"` // no certificate was verified, as the job asked
	RemoteAddr string          `json:"remote_addr,omitempty"`
	Redirects  []Redirect      `json:"redirects,omitempty"`
	Worker     string          `json:"worker"`
	Meta       json.RawMessage `json:"meta,omitempty"` // as given on the request's line
}

// RecordError says why an outcome is not ok.
type RecordError struct {
	Class   string `json:"class"` // from a bounded set
	Message string `json:"message"`
}

// Timings are the phases of the last exchange in milliseconds; a phase that did not happen is 0.
type Timings struct {
	DNS     float64 `json:"dns"`
	Connect float64 `json:"connect"`
	TLS     float64 `json:"tls"`
	TTFB    float64 `json:"ttfb"`
	Total   float64 `json:"total"`
}

// Redirect is one redirect that was followed on the way to FinalURL.
type Redirect struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
}

// BodyOf returns the job in which the record's body is.
func (r *Record) BodyOf() string {
	if r.BodyJob != "" {
		return r.BodyJob
	}
	return r.Job
}

// NewBytes is how many bytes of the body came with the record's own answer: none where the body is an earlier one. It is
// what an account counts.
func (r *Record) NewBytes() int64 {
	if r.Unchanged {
		return 0
	}
	return r.Bytes
}
