package tasks

import (
	"strings"
	"time"
)

// Since is what an earlier job has of a request, so that the origin need not send an unchanged body again: its
// validators, for a conditional request (RFC 9110, section 13.1), and where the body is. The job itself is the spec's.
type Since struct {
	// URL is the one that answered, the only one that the validators mean something to; "" = the URL as enqueued.
	URL          string    `json:"url,omitempty"`
	ETag         string    `json:"etag,omitempty"`          // as it was received, "W/" and quotes included
	LastModified string    `json:"last_modified,omitempty"` // as it was received
	FetchedAt    time.Time `json:"fetched_at,omitzero"`     // of the body; zero where that is not known
	BodyJob      JobID     `json:"body_job,omitempty"`      // in whose folder Body is; "" = the spec's Since
	Body         string    `json:"body,omitempty"`          // as its record names it, "" = there were no bytes
	Bytes        int64     `json:"bytes,omitempty"`         // of the decoded body
	SHA256       string    `json:"sha256,omitempty"`
	ContentType  string    `json:"content_type,omitempty"`
}

// Size is about how many bytes of payload it takes.
func (s *Since) Size() int {
	const names = 200 // field names, quotes, figures and the time
	n := names + len(s.URL) + len(s.ETag) + len(s.LastModified) + len(s.BodyJob) + len(s.Body) + len(s.SHA256) + len(s.ContentType)
	for _, text := range []string{s.ETag, s.LastModified, s.ContentType} { // what is quoted there is escaped here
		n += strings.Count(text, `"`) + strings.Count(text, `\`)
	}
	return n
}

// HoldsBody returns the job in whose folder the body is, where the earlier job is the one given.
func (s *Since) HoldsBody(earlier JobID) JobID {
	if s.BodyJob != "" {
		return s.BodyJob
	}
	return earlier
}
