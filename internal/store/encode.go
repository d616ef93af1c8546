package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// AppendRecord appends a record as one line of JSON, without newline. It yields what encoding/json does with HTML
// escaping off (a test holds it to that, for every field), in a quarter of the time: with small pages, encoding was
// the largest part of storing them that was not the kernel's.
func AppendRecord(b []byte, r *Record) ([]byte, error) {
	if err := checkRecord(r); err != nil {
		return b, err
	}
	e := encoder{b: append(b, '{')}
	e.str("id", r.ID)
	e.str("job", r.Job)
	e.str("batch", r.Batch)
	e.num("generation", int64(r.Generation))
	e.str("url", r.URL)
	e.optStr("final_url", r.FinalURL)
	e.str("method", r.Method)
	e.str("outcome", string(r.Outcome))
	e.optNum("status", int64(r.Status))
	if r.Error != nil {
		e.object("error", func() { e.str("class", r.Error.Class); e.str("message", r.Error.Message) })
	}
	e.num("attempts", int64(r.Attempts))
	e.headers(r.Headers)
	e.optStr("content_type", r.ContentType)
	e.optStr("charset", r.Charset)
	e.num("bytes", r.Bytes)
	e.optStr("sha256", r.SHA256)
	e.optStr("body", r.Body)
	if r.Unchanged {
		e.key("unchanged")
		e.b = append(e.b, "true"...)
	}
	e.optStr("body_job", r.BodyJob)
	e.optNum("resumed", int64(r.Resumed))
	e.key("fetched_at")
	e.b = append(e.b, '"')
	e.b, e.err = r.FetchedAt.AppendText(e.b)
	e.b = append(e.b, '"')
	e.float("elapsed_ms", r.ElapsedMS)
	if r.Timings != nil {
		e.object("timings", func() { e.timings(r.Timings) })
	}
	e.optStr("protocol", r.Protocol)
	if r.Insecure {
		e.key("insecure")
		e.b = append(e.b, "true"...)
	}
	e.optStr("remote_addr", r.RemoteAddr)
	e.redirects(r.Redirects)
	e.str("worker", r.Worker)
	e.meta(r.Meta)
	if e.err != nil {
		return b, e.err
	}
	return append(e.b, '}'), nil
}

// checkRecord refuses what JSON would store as something else: the names by which a record is found again.
func checkRecord(r *Record) error {
	if r.ID == "" {
		return errors.New("no id")
	}
	for _, s := range []string{r.ID, r.Job, r.Batch, r.URL} {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%.80q is not valid UTF-8", s)
		}
	}
	return nil
}

// encoder appends the fields of one object. The first error stays.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) key(name string) {
	if e.b[len(e.b)-1] != '{' {
		e.b = append(e.b, ',')
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, name...)
	e.b = append(e.b, '"', ':')
}

func (e *encoder) str(name, v string) {
	e.key(name)
	e.b = appendString(e.b, v)
}

func (e *encoder) optStr(name, v string) {
	if v != "" {
		e.str(name, v)
	}
}

func (e *encoder) num(name string, v int64) {
	e.key(name)
	e.b = strconv.AppendInt(e.b, v, 10)
}

func (e *encoder) optNum(name string, v int64) {
	if v != 0 {
		e.num(name, v)
	}
}

// float writes what encoding/json does for the magnitudes that milliseconds have, and leaves others to it.
func (e *encoder) float(name string, v float64) {
	e.key(name)
	if abs := math.Abs(v); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		e.b = strconv.AppendFloat(e.b, v, 'f', -1, 64)
		return
	}
	text, err := json.Marshal(v) // NaN and the infinities are errors
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("%s: %w", name, err)
	}
	e.b = append(e.b, text...)
}

func (e *encoder) object(name string, fields func()) {
	e.key(name)
	e.b = append(e.b, '{')
	fields()
	e.b = append(e.b, '}')
}

func (e *encoder) timings(t *Timings) {
	e.float("dns", t.DNS)
	e.float("connect", t.Connect)
	e.float("tls", t.TLS)
	e.float("ttfb", t.TTFB)
	e.float("total", t.Total)
}

// headers writes them sorted by name.
func (e *encoder) headers(h map[string][]string) {
	if len(h) == 0 {
		return
	}
	var few [32]string
	names := few[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	e.key("headers")
	e.b = append(e.b, '{')
	for i, name := range names {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = append(appendString(e.b, name), ':')
		e.strings(h[name])
	}
	e.b = append(e.b, '}')
}

func (e *encoder) strings(values []string) {
	if values == nil {
		e.b = append(e.b, "null"...)
		return
	}
	e.b = append(e.b, '[')
	for i, v := range values {
		if i > 0 {
			e.b = append(e.b, ',')
		}
		e.b = appendString(e.b, v)
	}
	e.b = append(e.b, ']')
}

func (e *encoder) redirects(list []Redirect) {
	if len(list) == 0 {
		return
	}
	e.key("redirects")
	for i, r := range list {
		e.b = append(e.b, "[,"[min(i, 1)], '{')
		e.str("url", r.URL)
		e.num("status", int64(r.Status))
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, ']')
}

// meta writes JSON given by the user, checked and on one line.
func (e *encoder) meta(m json.RawMessage) {
	if len(m) == 0 {
		return
	}
	e.key("meta")
	out := bytes.NewBuffer(e.b)
	if err := json.Compact(out, m); err != nil && e.err == nil {
		e.err = fmt.Errorf("meta: %w", err)
	}
	e.b = out.Bytes()
}

// appendString appends a JSON string. Plain ASCII is copied; the rest is left to encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			return appendHardString(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendHardString(b []byte, s string) []byte {
	out := bytes.NewBuffer(b)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes, and a Buffer takes it
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
