package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// kind is what a field holds.
type kind int

const (
	none     kind = iota // the record has no value
	text                 // any text
	number               // a whole number or a fraction
	instant              // a time
	boolean              // true or false
	document             // JSON of several values
	loose                // text from outside, which may be a number: header.NAME and meta.KEY
)

// value is what a record has in a field.
type value struct {
	kind   kind
	text   string
	number float64
	at     time.Time
	yes    bool
}

func textValue(s string) value {
	if s == "" {
		return value{}
	}
	return value{kind: text, text: s}
}

func numberValue(n float64) value { return value{kind: number, number: n} }

// append writes a value as CSV has it, without quotes. No value is no text.
func (v value) append(b []byte) []byte {
	switch v.kind {
	case text, document:
		return append(b, v.text...)
	case number:
		return strconv.AppendFloat(b, v.number, 'f', -1, 64)
	case instant:
		return v.at.AppendFormat(b, time.RFC3339Nano)
	case boolean:
		return strconv.AppendBool(b, v.yes)
	}
	return b
}

// field is one thing that records have, by name.
type field struct {
	name     string
	kind     kind
	of       func(*store.Record) value
	derived  bool                   // follows from other fields: no column unless asked for
	optional bool                   // records without a value are nothing unusual: "status="
	comma    bool                   // values may hold a comma: no list of them
	choices  []string               // the only values
	norm     func(string) string    // brings a value given into the spelling of records; nil: as it is
	equal    func(r, v string) bool // nil: ==
}

// fields are what records have, in the order of the columns. Names are a public contract.
var fields = []field{
	{name: "id", kind: text, of: func(r *store.Record) value { return textValue(r.ID) }},
	{name: "job", kind: text, of: func(r *store.Record) value { return textValue(r.Job) }},
	{name: "batch", kind: text, of: func(r *store.Record) value { return textValue(r.Batch) }},
	{name: "generation", kind: number, of: func(r *store.Record) value { return numberValue(float64(r.Generation)) }},
	{name: "url", kind: text, comma: true, of: func(r *store.Record) value { return textValue(r.URL) }},
	{name: "final_url", kind: text, comma: true, of: func(r *store.Record) value { return textValue(r.FinalURL) }},
	{name: "host", kind: text, derived: true, of: hostOf, equal: sameHost},
	{name: "method", kind: text, norm: strings.ToUpper, of: func(r *store.Record) value { return textValue(r.Method) }},
	{name: "outcome", kind: text, choices: outcomes(), of: func(r *store.Record) value { return textValue(string(r.Outcome)) }},
	{name: "status", kind: number, optional: true, of: statusOf},
	{name: "error_class", kind: text, of: func(r *store.Record) value { return errorOf(r, false) }},
	{name: "error_message", kind: text, comma: true, of: func(r *store.Record) value { return errorOf(r, true) }},
	{name: "attempts", kind: number, of: func(r *store.Record) value { return numberValue(float64(r.Attempts)) }},
	{name: "headers", kind: document, of: headersOf},
	{name: "content_type", kind: text, equal: sameContentType, of: func(r *store.Record) value { return textValue(r.ContentType) }},
	{name: "bytes", kind: number, of: func(r *store.Record) value { return numberValue(float64(r.Bytes)) }},
	{name: "sha256", kind: text, norm: strings.ToLower, of: func(r *store.Record) value { return textValue(r.SHA256) }},
	{name: "body", kind: text, comma: true, of: func(r *store.Record) value { return textValue(r.Body) }},
	{name: "unchanged", kind: boolean, of: func(r *store.Record) value { return value{kind: boolean, yes: r.Unchanged} }},
	{name: "body_job", kind: text, of: func(r *store.Record) value { return textValue(r.BodyJob) }},
	{name: "resumed", kind: number, of: func(r *store.Record) value { return numberValue(float64(r.Resumed)) }},
	{name: "fetched_at", kind: instant, of: func(r *store.Record) value { return value{kind: instant, at: r.FetchedAt} }},
	{name: "elapsed_ms", kind: number, of: func(r *store.Record) value { return numberValue(r.ElapsedMS) }},
	{name: "timings_dns", kind: number, optional: true, of: phase(func(t *store.Timings) float64 { return t.DNS })},
	{name: "timings_connect", kind: number, optional: true, of: phase(func(t *store.Timings) float64 { return t.Connect })},
	{name: "timings_tls", kind: number, optional: true, of: phase(func(t *store.Timings) float64 { return t.TLS })},
	{name: "timings_ttfb", kind: number, optional: true, of: phase(func(t *store.Timings) float64 { return t.TTFB })},
	{name: "timings_total", kind: number, optional: true, of: phase(func(t *store.Timings) float64 { return t.Total })},
	{name: "protocol", kind: text, norm: strings.ToUpper, of: func(r *store.Record) value { return textValue(r.Protocol) }},
	{name: "remote_addr", kind: text, of: func(r *store.Record) value { return textValue(r.RemoteAddr) }},
	{name: "redirects", kind: document, of: redirectsOf},
	{name: "worker", kind: text, of: func(r *store.Record) value { return textValue(r.Worker) }},
	{name: "meta", kind: document, of: func(r *store.Record) value { return documentValue(compact(r.Meta)) }},
	{name: "insecure", kind: boolean, of: func(r *store.Record) value { return value{kind: boolean, yes: r.Insecure} }},
	{name: "charset", kind: text, norm: strings.ToLower, of: func(r *store.Record) value { return textValue(r.Charset) }},
}

// What begins the name of one header field of the answer, or of one member of the meta of the list's line.
const (
	headerPrefix = "header."
	metaPrefix   = "meta."
)

// fieldNamed finds a field by its name. The names of a record's JSON do as well: "error.class", "timings.ttfb".
func fieldNamed(name string) (field, error) {
	if key, ok := strings.CutPrefix(name, metaPrefix); ok && key != "" {
		return field{name: name, kind: loose, comma: true, of: func(r *store.Record) value { return memberOf(r.Meta, key) }}, nil
	}
	if key, ok := strings.CutPrefix(name, headerPrefix); ok && key != "" {
		key = textproto.CanonicalMIMEHeaderKey(key)
		return field{name: headerPrefix + key, kind: loose, comma: true, of: func(r *store.Record) value { return headerOf(r, key) }}, nil
	}
	flat := name
	if strings.HasPrefix(name, "error.") || strings.HasPrefix(name, "timings.") {
		flat = strings.Replace(name, ".", "_", 1)
	}
	if name == "class" {
		flat = "error_class"
	}
	for _, f := range fields {
		if f.name == flat {
			return f, nil
		}
	}
	return field{}, fmt.Errorf("there is no field %.80q; there are %s", name, known())
}

func outcomes() []string {
	list := make([]string, len(store.Outcomes))
	for i, o := range store.Outcomes {
		list[i] = string(o)
	}
	return list
}

func statusOf(r *store.Record) value {
	if r.Status == 0 {
		return value{}
	}
	return numberValue(float64(r.Status))
}

func errorOf(r *store.Record, message bool) value {
	switch {
	case r.Error == nil:
		return value{}
	case message:
		return textValue(r.Error.Message)
	}
	return textValue(r.Error.Class)
}

func phase(of func(*store.Timings) float64) func(*store.Record) value {
	return func(r *store.Record) value {
		if r.Timings == nil {
			return value{}
		}
		return numberValue(of(r.Timings))
	}
}

// hostOf is the host that was asked first: that of the URL as enqueued.
func hostOf(r *store.Record) value {
	u, err := canon.Parse(r.URL)
	if err != nil {
		return value{}
	}
	return textValue(u.Host)
}

// sameHost holds a host against one as people write it, also with the port that its scheme has anyway.
func sameHost(host, given string) bool {
	if strings.EqualFold(host, given) {
		return true
	}
	for _, scheme := range []string{"http://", "https://"} {
		if u, err := canon.Parse(scheme + given); err == nil && u.Host == host {
			return true
		}
	}
	return false
}

// sameContentType compares media types without regard to case (RFC 9110, section 8.3.1), and without parameters unless
// some were given.
func sameContentType(had, given string) bool {
	if !strings.Contains(given, ";") {
		had, _, _ = strings.Cut(had, ";")
	}
	return strings.EqualFold(strings.TrimSpace(had), given)
}

// headerOf joins the lines of one header field as RFC 9110, section 5.3, does.
func headerOf(r *store.Record, key string) value {
	lines, ok := r.Headers[key]
	if !ok { // a record from elsewhere, in its own spelling
		for name, l := range r.Headers {
			if strings.EqualFold(name, key) {
				lines, ok = l, true
			}
		}
	}
	if !ok {
		return value{}
	}
	return value{kind: text, text: strings.Join(lines, ", ")}
}

// memberOf is a member of meta by its key, or by a path of keys with dots between them. A string is its text, everything
// else its JSON.
func memberOf(meta json.RawMessage, path string) value {
	var members map[string]json.RawMessage
	if len(meta) == 0 || json.Unmarshal(meta, &members) != nil {
		return value{}
	}
	raw, ok := members[path]
	if !ok {
		key, rest, dotted := strings.Cut(path, ".")
		if !dotted {
			return value{}
		}
		return memberOf(members[key], rest)
	}
	var s string
	switch {
	case string(raw) == "null":
		return value{}
	case raw[0] == '"' && json.Unmarshal(raw, &s) == nil:
		return value{kind: text, text: s}
	}
	return value{kind: text, text: compact(raw)}
}

func headersOf(r *store.Record) value {
	if len(r.Headers) == 0 {
		return value{}
	}
	return documentValue(encoded(r.Headers))
}

func redirectsOf(r *store.Record) value {
	if len(r.Redirects) == 0 {
		return value{}
	}
	return documentValue(encoded(r.Redirects))
}

func documentValue(s string) value {
	if s == "" {
		return value{}
	}
	return value{kind: document, text: s}
}

// encoded is the JSON of what always has one, with &, < and > as they are.
func encoded(v any) string {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // maps and slices of strings and numbers
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// compact puts JSON on one line. What is no JSON stays as it is.
func compact(raw json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return string(raw)
	}
	return out.String()
}
