package tasks

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Wants say which answers and which part of them a job is after.
type Wants struct {
	Accept MediaRanges `json:"accept,omitempty"` // types whose bodies are wanted, "" = all
	Range  ByteRange   `json:"range,omitempty"`  // the part of each body to ask for, "" = the whole
}

func (w *Wants) used() bool { return w.Accept != "" || w.Range != "" }

func (w *Wants) validate() error {
	if _, err := ParseMediaRanges(string(w.Accept)); err != nil {
		return fmt.Errorf("--accept: %w", err)
	}
	if _, err := ParseByteRange(string(w.Range)); err != nil {
		return fmt.Errorf("--range: %w", err)
	}
	return nil
}

func (w *Wants) fields() map[string]string {
	return map[string]string{"--accept": orNone(string(w.Accept)), "--range": orNone(string(w.Range))}
}

// MediaRanges is a list of media ranges (RFC 9110, section 12.5.1) without parameters, in lower case: "text/html,image/*".
type MediaRanges string

// ParseMediaRanges reads a list. Parameters are refused: a type is wanted or not.
func ParseMediaRanges(list string) (MediaRanges, error) {
	if strings.TrimSpace(list) == "" {
		return "", nil
	}
	var ranges []string
	for part := range strings.SplitSeq(list, ",") {
		part = strings.ToLower(strings.TrimSpace(part))
		kind, sub, ok := strings.Cut(part, "/")
		if !ok || !isToken(kind) || !isToken(sub) || kind == "*" && sub != "*" || sub != "*" && strings.Contains(part, "*") {
			return "", fmt.Errorf("%.60q is no media type: write text/html, image/* or several after commas", part)
		}
		ranges = append(ranges, part)
	}
	return MediaRanges(strings.Join(ranges, ",")), nil
}

// Match reports whether a Content-Type is among them. One that is not there counts as application/octet-stream
// (RFC 9110, section 8.3). An empty list takes everything.
func (m MediaRanges) Match(contentType string) bool {
	if m == "" {
		return true
	}
	kind, _, _ := strings.Cut(contentType, ";")
	if kind = strings.ToLower(strings.TrimSpace(kind)); kind == "" {
		kind = "application/octet-stream"
	}
	for r := range strings.SplitSeq(string(m), ",") {
		prefix, any := strings.CutSuffix(r, "*")
		if r == kind || r == "*/*" || any && len(kind) > len(prefix) && strings.HasPrefix(kind, prefix) {
			return true
		}
	}
	return false
}

// Field is the list as the value of an Accept field.
func (m MediaRanges) Field() string { return strings.ReplaceAll(string(m), ",", ", ") }

// ByteRange is one range of bytes as RFC 9110, section 14.1.2 writes it behind "bytes=": "0-1023", "500-" or "-500".
type ByteRange string

var errByteRange = errors.New("write 0-1023, 500- (from there on) or -500 (the last so many bytes)")

// ParseByteRange reads one range, with "bytes=" before it or not.
func ParseByteRange(text string) (ByteRange, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return "", nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	if !ok || first == "" && last == "" {
		return "", fmt.Errorf("%.60q: %w", text, errByteRange)
	}
	from, to := int64(0), int64(-1)
	for _, n := range []struct {
		text string
		to   *int64
	}{{first, &from}, {last, &to}} {
		if n.text == "" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 63)
		if err != nil {
			return "", fmt.Errorf("%.60q: %w", text, errByteRange)
		}
		*n.to = int64(v)
	}
	switch {
	case first == "" && to == 0:
		return "", fmt.Errorf("%.60q: the last 0 bytes are nothing", text)
	case first == "":
		return ByteRange("-" + strconv.FormatInt(to, 10)), nil
	case last == "":
		return ByteRange(strconv.FormatInt(from, 10) + "-"), nil
	case to < from:
		return "", fmt.Errorf("%.60q: it ends before it begins", text)
	}
	return ByteRange(strconv.FormatInt(from, 10) + "-" + strconv.FormatInt(to, 10)), nil
}

// Field is the range as the value of a Range field.
func (r ByteRange) Field() string { return "bytes=" + string(r) }

// isToken reports whether s is a token (RFC 9110, section 5.6.2), as methods and names are.
func isToken(s string) bool { return httpguts.ValidHeaderFieldName(s) }

// validateHead refuses what could smuggle a header or a request into what is sent. It repeats no value of a header.
func (s *Spec) validateHead() error {
	if !isToken(s.Method) || s.Method == "CONNECT" {
		return fmt.Errorf("--method %.60q: not an HTTP method that is fetched with", s.Method)
	}
	if !httpguts.ValidHeaderFieldValue(s.UserAgent) {
		return errors.New("--user-agent: it holds a line break or another control character")
	}
	for name, values := range s.Header {
		if !isToken(name) {
			return fmt.Errorf("--header %.60q: this is not a header name", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("--header %s: the value holds a line break or another control character", name)
			}
		}
	}
	return nil
}
