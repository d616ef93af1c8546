// Package charset says in which character encoding a text is written, from what an HTTP answer says and from the first
// bytes of its body. It promises to name an encoding only where something names it or the bytes prove it, by the name
// that the Encoding standard gives it ("utf-8", "windows-1252"). It changes no byte, and guesses no language.
package charset

import (
	"bytes"
	"mime"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
	labels "golang.org/x/net/html/charset"
)

// Head is how many bytes of a body are looked at (HTML standard, section 13.2.3.2).
const Head = 1024

// Of names the encoding of a text of that Content-Type whose body begins with head, "" where nothing tells it or the type
// is no text. The order is that of the HTML standard, section 13.2.3.1: a byte order mark, Content-Type, for HTML a meta
// element, and then bytes that are UTF-8 and nothing else. What is ASCII only proves nothing: the rest may be anything.
func Of(contentType string, head []byte) string {
	kind, params, _ := strings.Cut(contentType, ";")
	kind = strings.TrimSpace(kind)
	if !isText(kind) {
		return ""
	}
	if len(head) > Head {
		head = head[:Head]
	}
	if name := mark(head); name != "" {
		return name
	}
	if name := named(contentType, params); name != "" {
		return name
	}
	if isHTML(kind) {
		if name := prescan(head); name != "" {
			return name
		}
	}
	whole := withoutCutRune(head)
	json := hasSuffix(kind, "json") // which is UTF-8 (RFC 8259, section 8.1)
	if len(head) > 0 && (json || !ascii(whole)) && utf8.Valid(whole) {
		return "utf-8"
	}
	return ""
}

// named is what Content-Type says. Nearly all say UTF-8, in one of few spellings.
func named(contentType, params string) string {
	if params == "" {
		return ""
	}
	if strings.EqualFold(strings.TrimSpace(params), "charset=utf-8") {
		return "utf-8"
	}
	_, all, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	_, name := labels.Lookup(all["charset"])
	return name
}

func isHTML(kind string) bool {
	return strings.EqualFold(kind, "text/html") || strings.EqualFold(kind, "application/xhtml+xml")
}

// isText reports whether a media type is written in characters.
func isText(kind string) bool {
	if len(kind) > 5 && strings.EqualFold(kind[:5], "text/") {
		return true
	}
	for _, suffix := range []string{"/json", "+json", "/xml", "+xml", "/javascript", "/x-javascript", "/ecmascript", "/x-ndjson", "/xml-dtd"} {
		if hasSuffix(kind, suffix) {
			return true
		}
	}
	return false
}

func hasSuffix(kind, suffix string) bool {
	return len(kind) >= len(suffix) && strings.EqualFold(kind[len(kind)-len(suffix):], suffix)
}

// mark reads a byte order mark (Encoding standard, section 6, "BOM sniff").
func mark(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		return "utf-8"
	case bytes.HasPrefix(head, []byte("\xfe\xff")):
		return "utf-16be"
	case bytes.HasPrefix(head, []byte("\xff\xfe")):
		return "utf-16le"
	}
	return ""
}

func ascii(p []byte) bool {
	for _, c := range p {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// withoutCutRune leaves out a character at the end of which the rest may follow.
func withoutCutRune(head []byte) []byte {
	for i := len(head) - 1; i >= 0 && i >= len(head)-utf8.UTFMax+1; i-- {
		if utf8.RuneStart(head[i]) {
			if !utf8.FullRune(head[i:]) {
				return head[:i]
			}
			break
		}
	}
	return head
}

// prescan looks for a meta element that names an encoding (HTML standard, "prescan a byte stream to determine its
// encoding").
func prescan(head []byte) string {
	if !mentions(head) {
		return ""
	}
	z := html.NewTokenizer(bytes.NewReader(head))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return ""
		case html.StartTagToken, html.SelfClosingTagToken:
			tag, more := z.TagName()
			if string(tag) != "meta" || !more {
				continue
			}
			if name := ofMeta(z); name != "" {
				return name
			}
		}
	}
}

// mentions reports whether the word is there at all: most pages name their encoding in Content-Type or not.
func mentions(head []byte) bool {
	const word = "charset"
	for i := 0; i+len(word) <= len(head); i++ {
		if head[i]|0x20 == 'c' && bytes.EqualFold(head[i:i+len(word)], []byte(word)) {
			return true
		}
	}
	return false
}

// ofMeta reads the attributes of a meta element. The first of each name counts.
func ofMeta(z *html.Tokenizer) string {
	seen := map[string]string{}
	for more := true; more; {
		var key, value []byte
		key, value, more = z.TagAttr()
		if _, again := seen[string(key)]; !again {
			seen[string(key)] = string(value)
		}
	}
	label, own := seen["charset"]
	if !own {
		if !strings.EqualFold(seen["http-equiv"], "content-type") {
			return ""
		}
		label = ofContent(seen["content"])
	}
	_, name := labels.Lookup(label)
	switch name {
	case "utf-16be", "utf-16le": // it has just been read as ASCII
		return "utf-8"
	case "x-user-defined":
		return "windows-1252"
	}
	return name
}

// ofContent finds the encoding in the content of a meta element (HTML standard, "extracting a character encoding from a
// meta element").
func ofContent(content string) string {
	for rest := strings.ToLower(content); ; {
		_, after, ok := strings.Cut(rest, "charset")
		if !ok {
			return ""
		}
		rest = after
		value, ok := strings.CutPrefix(strings.TrimLeft(after, " \t\n\f\r"), "=")
		if !ok {
			continue
		}
		value = strings.TrimLeft(value, " \t\n\f\r")
		if value != "" && (value[0] == '"' || value[0] == '\'') {
			quoted, _, closed := strings.Cut(value[1:], value[:1])
			if !closed {
				return ""
			}
			return quoted
		}
		if end := strings.IndexAny(value, "; \t\n\f\r"); end >= 0 {
			value = value[:end]
		}
		return value
	}
}
