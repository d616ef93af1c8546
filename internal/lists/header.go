package lists

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"slices"

	"golang.org/x/net/http/httpguts"
)

// reserved header fields say how a message travels (RFC 9110 sections 6.4, 7.2, 7.6.1 and 7.8; RFC 9112 section 6);
// a list that set them could make the fetcher and the server disagree on where a request ends.
var reserved = map[string]bool{
	"Connection": true, "Content-Length": true, "Expect": true, "Host": true, "Keep-Alive": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// errAgent keeps User-Agent out of the header fields: a host's rules may name another, and robots.txt is asked about the
// one that is sent, so there is one place to say it.
var errAgent = errors.New("the User-Agent is that of the whole job: use --user-agent")

// readHeaders takes an object whose values are strings or lists of strings.
func readHeaders(it *draft, v json.RawMessage) error {
	var given map[string]json.RawMessage
	if json.Unmarshal(v, &given) != nil {
		return errors.New(`must be an object like {"Accept": "text/html"}`)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		values, err := headerValues(given[name])
		if err == nil {
			err = CheckHeader(name, values)
		}
		if err != nil {
			return fmt.Errorf("%.60q: %w", name, err)
		}
		if len(values) > 0 {
			it.setHeader(name, values)
		}
	}
	return nil
}

func headerValues(v json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(v, &one) == nil && string(v) != "null" {
		return []string{one}, nil
	}
	var many []string
	if json.Unmarshal(v, &many) != nil || string(v) == "null" {
		return nil, errors.New("the value must be a string or a list of strings")
	}
	return many, nil
}

// CheckHeader reports what keeps a header field from being sent: a name that is no token, a value with control
// characters (RFC 9110 section 5), or a field that is the fetcher's own or the job's. The message repeats no value.
func CheckHeader(name string, values []string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return errors.New("this is not a header name")
	}
	switch canonical := textproto.CanonicalMIMEHeaderKey(name); {
	case canonical == "User-Agent":
		return errAgent
	case reserved[canonical]:
		return errors.New("this header is set by the fetcher and cannot be given")
	}
	for _, v := range values {
		if !httpguts.ValidHeaderFieldValue(v) {
			return errors.New("the value holds a line break or another control character")
		}
	}
	return nil
}

// setHeader adds to a field's values; names that differ in case only are one field.
func (it *Item) setHeader(name string, values []string) {
	if it.Header == nil {
		it.Header = make(map[string][]string)
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	it.Header[name] = append(it.Header[name], values...)
}
