package warc

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Capture is what an index says of one response, revisit or resource record.
type Capture struct {
	URL    string    `json:"url"`
	At     time.Time `json:"at"`
	MIME   string    `json:"mime,omitempty"` // "warc/revisit" of a revisit
	Status int       `json:"status,omitempty"`
	SHA256 string    `json:"sha256,omitempty"` // of the payload, in hexadecimal digits
	Length int64     `json:"length"`           // of the member
	Offset int64     `json:"offset"`
}

// RevisitMIME is the media type under which indexes have revisit records.
const RevisitMIME = "warc/revisit"

// AppendCDXJ appends the line of a capture, which begins at base in the file so named: key, time, and a JSON object whose
// members are strings, as replay tools expect them.
func AppendCDXJ(b []byte, c *Capture, base int64, filename string) []byte {
	b = appendURI(b, SURT(c.URL))
	b = c.At.UTC().AppendFormat(append(b, ' '), "20060102150405")
	line := struct {
		URL      string `json:"url"`
		MIME     string `json:"mime,omitempty"`
		Status   string `json:"status,omitempty"`
		Digest   string `json:"digest,omitempty"`
		Length   string `json:"length"`
		Offset   string `json:"offset"`
		Filename string `json:"filename"`
	}{
		URL: c.URL, MIME: c.MIME, Digest: c.SHA256, Filename: filename,
		Length: strconv.FormatInt(c.Length, 10), Offset: strconv.FormatInt(base+c.Offset, 10),
	}
	if c.Status > 0 {
		line.Status = strconv.Itoa(c.Status)
	}
	if c.SHA256 != "" {
		line.Digest = "sha256:" + c.SHA256
	}
	out := bytes.NewBuffer(append(b, ' '))
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(line); err != nil {
		panic(err) // strings always encode, and a Buffer takes them
	}
	return out.Bytes()
}

// ParseCDXJ reads what AppendCDXJ wrote; Offset is that in the file.
func ParseCDXJ(line []byte) (c Capture, filename string, ok bool) {
	_, rest, _ := bytes.Cut(line, []byte(" "))
	at, object, _ := bytes.Cut(rest, []byte(" "))
	var in struct{ URL, MIME, Status, Digest, Length, Offset, Filename string }
	if json.Unmarshal(object, &in) != nil {
		return c, "", false
	}
	var errs [3]error
	c = Capture{URL: in.URL, MIME: in.MIME, SHA256: strings.TrimPrefix(in.Digest, "sha256:")}
	c.At, errs[0] = time.Parse("20060102150405", string(at))
	c.Length, errs[1] = strconv.ParseInt(in.Length, 10, 64)
	c.Offset, errs[2] = strconv.ParseInt(in.Offset, 10, 64)
	c.Status, _ = strconv.Atoi(in.Status)
	return c, in.Filename, errs == [3]error{}
}

// SURT returns the key under which replay tools look a URL up (Sort-friendly URI Reordering Transform): host reversed,
// port where it is not the scheme's, path, and the arguments of the query sorted; all in lower case, without a leading
// "www." or "www1." and without a fragment. "https://www.Example.com/A?b&a" has "com,example)/a?a&b". It is the form of
// pywb and warcio. What is no http URL stays as it is.
func SURT(url string) string {
	rest, isHTTPS := strings.CutPrefix(url, "https://")
	if !isHTTPS {
		var ok bool
		if rest, ok = strings.CutPrefix(url, "http://"); !ok {
			return url
		}
	}
	rest, _, _ = strings.Cut(strings.ToLower(rest), "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host, path := rest[:end], rest[end:]
	host = host[strings.LastIndexByte(host, '@')+1:]
	port := ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	labels := strings.Split(trimWWW(host), ".")
	slices.Reverse(labels)
	key := strings.Join(labels, ",")
	if port != "" && port != map[bool]string{true: "443", false: "80"}[isHTTPS] {
		key += ":" + port
	}
	path, query, hasQuery := strings.Cut(path, "?")
	if path == "" {
		path = "/"
	}
	key += ")" + path
	if hasQuery && query != "" {
		args := strings.Split(query, "&")
		slices.Sort(args)
		key += "?" + strings.Join(args, "&")
	}
	return key
}

// trimWWW drops a first label "www" or "www" and digits.
func trimWWW(host string) string {
	label, rest, ok := strings.Cut(host, ".")
	digits, www := strings.CutPrefix(label, "www")
	if ok && www && strings.Trim(digits, "0123456789") == "" {
		return rest
	}
	return host
}
