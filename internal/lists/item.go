package lists

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/fetchfleet/fetchfleet/internal/payload"
)

// Limits of what a line may ask for.
const (
	// MaxRetries is the highest "retries".
	MaxRetries = 1000
	// MaxTimeout is the longest "timeout".
	MaxTimeout = 24 * time.Hour
)

// draft is an item that is being read, and what else its line says.
type draft struct {
	Item
	params []payload.Pair
	bodyBy string // the field that gave the body, "" = none has
	opts   *Options
}

// fields reads each field of a JSON line into the item. "headers" comes before what makes a body, which may add to them.
var fields = []struct {
	name string
	read func(*draft, json.RawMessage) error
}{
	{"url", func(it *draft, v json.RawMessage) error { return readString(v, &it.URL) }},
	{"method", readMethod},
	{"headers", readHeaders},
	{"params", readParams},
	{"body", body("body", readBody)},
	{"json", body("json", readJSON)},
	{"form", body("form", readForm)},
	{"multipart", body("multipart", readMultipart)},
	{"body_base64", body("body_base64", readBase64)},
	{"key", func(it *draft, v json.RawMessage) error { return readString(v, &it.Key) }},
	{"meta", readMeta},
	{"retries", readRetries},
	{"timeout", func(it *draft, v json.RawMessage) error { return readTimeout(v, &it.Timeout) }},
	{"max_time", func(it *draft, v json.RawMessage) error { return readTimeout(v, &it.MaxTime) }},
	{"connect_timeout", func(it *draft, v json.RawMessage) error { return readTimeout(v, &it.ConnectTimeout) }},
	{"tls_timeout", func(it *draft, v json.RawMessage) error { return readTimeout(v, &it.TLSTimeout) }},
	{"idle_timeout", func(it *draft, v json.RawMessage) error { return readTimeout(v, &it.IdleTimeout) }},
}

// parseItem reads one JSON line. A field that is null is as good as absent.
func parseItem(text []byte, opts *Options) (Item, error) {
	if !utf8.Valid(text) {
		return Item{}, errors.New("the JSON is not UTF-8")
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil {
		return Item{}, fmt.Errorf("bad JSON: %w", err)
	}
	it := draft{opts: opts}
	for _, f := range fields {
		v, ok := given[f.name]
		delete(given, f.name)
		if !ok || string(v) == "null" {
			continue
		}
		if err := f.read(&it, v); err != nil {
			return Item{}, fmt.Errorf("%q %w", f.name, err)
		}
	}
	if unknown := slices.Sorted(maps.Keys(given)); len(unknown) > 0 {
		return Item{}, fmt.Errorf("unknown field %.60q: known are %s", unknown[0], strings.Join(Fields(), ", "))
	}
	it.URL = string(trim([]byte(it.URL)))
	if it.URL == "" {
		return Item{}, errors.New(`"url" is missing`)
	}
	it.URL = withParams(it.URL, opts.Params, it.params)
	return it.Item, nil
}

// Fields are the names that a JSON line may have.
func Fields() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

func readString(v json.RawMessage, to *string) error {
	if json.Unmarshal(v, to) != nil {
		return errors.New("must be a string")
	}
	return nil
}

// readMethod takes any token (RFC 9110 section 9.1) but CONNECT, which asks for a tunnel and not for an answer.
// Methods are case-sensitive, but nobody who writes "get" means another method than GET.
func readMethod(it *draft, v json.RawMessage) (err error) {
	if err := readString(v, &it.Method); err != nil || it.Method == "" {
		return err
	}
	it.Method, err = Method(it.Method)
	return err
}

// Method returns a method as it is sent. The error reads on from the name of what holds it.
func Method(text string) (string, error) {
	if !httpguts.ValidHeaderFieldName(text) { // a token as well
		return "", fmt.Errorf("is not an HTTP method: %.60q", text)
	}
	switch upper := strings.ToUpper(text); upper {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE":
		return upper, nil
	case "CONNECT":
		return "", errors.New("cannot be CONNECT")
	}
	return text, nil
}

// readBody takes a string as it is and anything else as JSON.
func readBody(it *draft, v json.RawMessage) error {
	if v[0] == '"' {
		var s string
		if err := readString(v, &s); err != nil {
			return err
		}
		if s != "" {
			it.Body = []byte(s)
		}
		return nil
	}
	return readJSON(it, v)
}

func readMeta(it *draft, v json.RawMessage) error {
	it.Meta = compact(v)
	return nil
}

func readRetries(it *draft, v json.RawMessage) error {
	var n int
	if json.Unmarshal(v, &n) != nil || n < 0 || n > MaxRetries {
		return fmt.Errorf("must be a whole number from 0 to %d", MaxRetries)
	}
	it.Retries = &n
	return nil
}

// readTimeout takes a Go duration ("1m30s") or a number of seconds.
func readTimeout(v json.RawMessage, to *time.Duration) error {
	var text string
	var seconds float64
	if json.Unmarshal(v, &text) == nil {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf(`must be a duration like "20s" or a number of seconds, not %.60q`, text)
		}
		*to = d
	} else if json.Unmarshal(v, &seconds) == nil {
		*to = time.Duration(min(max(seconds, -1), 2*MaxTimeout.Seconds()) * float64(time.Second))
	} else {
		return errors.New(`must be a duration like "20s" or a number of seconds`)
	}
	if *to < time.Millisecond || *to > MaxTimeout {
		return fmt.Errorf("must be from 1ms to %s", MaxTimeout)
	}
	return nil
}

// given is a duration as a line has it, "" where it says nothing.
func given(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// compact is v, which is valid JSON, without white space.
func compact(v json.RawMessage) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return v
	}
	return b.Bytes()
}

func isJSON(text string) bool { return json.Valid([]byte(text)) }

// MarshalJSON writes an item as the JSON line that reads as the same item again.
func (it Item) MarshalJSON() ([]byte, error) {
	line := struct {
		URL     string              `json:"url"`
		Method  string              `json:"method,omitempty"`
		Headers map[string][]string `json:"headers,omitempty"`
		Body    string              `json:"body,omitempty"`
		Base64  []byte              `json:"body_base64,omitempty"`
		Key     string              `json:"key,omitempty"`
		Meta    json.RawMessage     `json:"meta,omitempty"`
		Retries *int                `json:"retries,omitempty"`
		Timeout string              `json:"timeout,omitempty"`
		MaxTime string              `json:"max_time,omitempty"`
		Connect string              `json:"connect_timeout,omitempty"`
		TLS     string              `json:"tls_timeout,omitempty"`
		Idle    string              `json:"idle_timeout,omitempty"`
	}{URL: it.URL, Method: it.Method, Headers: it.Header, Key: it.Key, Meta: it.Meta, Retries: it.Retries,
		Timeout: given(it.Timeout), MaxTime: given(it.MaxTime), Connect: given(it.ConnectTimeout), TLS: given(it.TLSTimeout), Idle: given(it.IdleTimeout)}
	if utf8.Valid(it.Body) {
		line.Body = string(it.Body)
	} else {
		line.Base64 = it.Body
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // keeps meta as it was
	if err := e.Encode(line); err != nil {
		return nil, fmt.Errorf("encode list line: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
