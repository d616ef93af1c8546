package tasks

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Request is one thing to fetch. What is empty comes from the job's spec. A request that is nothing but a URL is
// written as a JSON string, so that payloads stay short and readable.
type Request struct {
	URL     string          `json:"url"` // canonical, without fragment
	Method  string          `json:"method,omitempty"`
	Header  Header          `json:"headers,omitempty"`
	Body    []byte          `json:"body,omitempty"`     // base64 in JSON
	BodyKey string          `json:"body_key,omitempty"` // the body lives under its own key in the ledger
	Key     string          `json:"key,omitempty"`
	Meta    json.RawMessage `json:"meta,omitempty"`
	Retries *int            `json:"retries,omitempty"`
	Timeout Duration        `json:"timeout,omitempty"`
	Since   *Since          `json:"since,omitempty"` // what an earlier job has of it
	RequestLimits

	// The rest is there once the request was redirected to another host and left its batch.
	ID           RequestID `json:"id,omitempty"`     // URL no longer tells it
	Origin       string    `json:"origin,omitempty"` // URL as enqueued
	OriginMethod string    `json:"origin_method,omitempty"`
	Redirects    []Hop     `json:"redirects,omitempty"`
}

// Hop is a redirect that was followed: the URL that answered and its status.
type Hop struct {
	URL    string `json:"url"`
	Status int    `json:"status"`
}

// Header is request header fields. In JSON a field with one value may be written as a string.
type Header map[string][]string

// MarshalJSON writes single values as strings.
func (h Header) MarshalJSON() ([]byte, error) {
	m := make(map[string]any, len(h))
	for name, values := range h {
		if m[name] = values; len(values) == 1 {
			m[name] = values[0]
		}
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads strings and lists of strings.
func (h *Header) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	*h = make(Header, len(raw))
	for name, value := range raw {
		var one string
		if err := json.Unmarshal(value, &one); err == nil {
			(*h)[name] = []string{one}
			continue
		}
		var many []string
		if err := json.Unmarshal(value, &many); err != nil {
			return fmt.Errorf("header %q: a string or a list of strings", name)
		}
		(*h)[name] = many
	}
	return nil
}

// plain reports whether the request is nothing but its URL.
func (r *Request) plain() bool {
	return r.Method == "" && r.Header == nil && r.Body == nil && r.BodyKey == "" && r.Key == "" && r.Meta == nil &&
		r.Retries == nil && r.Timeout == 0 && r.RequestLimits == (RequestLimits{}) && r.Since == nil && r.ID == "" && r.Origin == "" && r.OriginMethod == "" && r.Redirects == nil
}

// wire is Request without its methods.
type wire Request

// AppendJSON appends the request as JSON. The URL of a plain request takes the short form; meta stays as it was given.
func (r *Request) AppendJSON(b []byte) ([]byte, error) {
	if r.plain() {
		return appendString(b, r.URL)
	}
	var buffer bytes.Buffer
	e := json.NewEncoder(&buffer)
	e.SetEscapeHTML(false) // it would rewrite meta
	if err := e.Encode((*wire)(r)); err != nil {
		return b, fmt.Errorf("write request %s: %w", r.URL, err)
	}
	return append(b, bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))...), nil
}

// MarshalJSON is AppendJSON for encoding/json.
func (r Request) MarshalJSON() ([]byte, error) { return r.AppendJSON(nil) }

// UnmarshalJSON reads both forms.
func (r *Request) UnmarshalJSON(data []byte) error {
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		*r = Request{}
		return json.Unmarshal(data, &r.URL)
	}
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	*r = Request(w)
	return nil
}

// appendString appends s as a JSON string, fast where nothing needs escaping.
func appendString(b []byte, s string) ([]byte, error) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			data, err := json.Marshal(s)
			return append(b, data...), err
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"'), nil
}

// Identity returns the id of the request within its job and the URL and method under which it was enqueued.
func (r *Request) Identity(job JobID, spec *Spec) (id RequestID, url, method string) {
	url, method = r.URL, r.EffectiveMethod(spec)
	if r.ID != "" {
		id = r.ID
		if r.Origin != "" {
			url = r.Origin
		}
		if r.OriginMethod != "" {
			method = r.OriginMethod
		}
		return id, url, method
	}
	return NewRequestID(job, method, url, r.Key, r.Body), url, method
}

// EffectiveMethod is the request's method, or the job's.
func (r *Request) EffectiveMethod(spec *Spec) string {
	if r.Method != "" {
		return r.Method
	}
	return spec.Method
}

// Attempts returns how many attempts the request may take in all.
func (r *Request) Attempts(spec *Spec) int {
	if r.Retries != nil {
		return *r.Retries + 1
	}
	return spec.Retries + 1
}

// HeaderTimeout returns how long to wait for headers: as the request says, or its method, or the job.
func (r *Request) HeaderTimeout(spec *Spec) time.Duration {
	return either(cmp.Or(r.Timeout, spec.MethodTimeouts[r.EffectiveMethod(spec)]), spec.Timeout)
}

func appendInt(b []byte, name string, v int64) []byte {
	if v == 0 {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return strconv.AppendInt(b, v, 10)
}
