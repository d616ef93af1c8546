package lists

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"
)

const byteOrderMark = "\xef\xbb\xbf"

// sniffed is how much of a list's first block is looked at, in bytes.
const sniffed = 64 << 10

// kinds of file that people hand over by mistake, by their first bytes.
var kinds = []struct{ magic, name string }{
	{"PK\x03\x04", "a zip archive"},
	{"BZh", "bzip2 data"},
	{"\xfd7zXZ\x00", "xz data"},
	{"7z\xbc\xaf\x27\x1c", "a 7z archive"},
	{"%PDF-", "a PDF document"},
	{"SQLite format 3\x00", "an SQLite database"},
	{"PAR1", "a Parquet file"},
	{"\xff\xfe", "UTF-16 text, not UTF-8"},
	{"\xfe\xff", "UTF-16 text, not UTF-8"},
}

// first reads the first block of a list into buf and refuses what is no text. It returns io.EOF with the bytes
// before it. It waits for one byte and not for a full block, because standard input may be a person.
func (s *source) first(buf []byte) (int, error) {
	n, err := io.ReadAtLeast(s, buf, 1)
	if err != nil && err != io.EOF {
		return n, readError(s.name, 0, err)
	}
	if bad := binary(buf[:min(n, sniffed)]); bad != "" {
		return n, fmt.Errorf("list %s looks like %s: expected text, gzip or zstd", title(s.name), bad)
	}
	return n, err
}

// binary says what b, the beginning of a file, looks like, or "" if it may be a list. A few bytes that are not
// UTF-8 are an old list in another encoding; a NUL, or one odd byte in ten, is no list.
func binary(b []byte) string {
	for _, k := range kinds {
		if bytes.HasPrefix(b, []byte(k.magic)) {
			return k.name
		}
	}
	odd, first := 0, -1
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		cut := n == 1 && r == utf8.RuneError && !utf8.FullRune(b[i:])
		if r == 0 {
			return binaryAt(b, i)
		}
		if !cut && (r == utf8.RuneError && n == 1 || r < ' ' && !isSpace(byte(r))) {
			if odd++; first < 0 {
				first = i
			}
		}
		i += n
	}
	if odd > len(b)/10 {
		return binaryAt(b, first)
	}
	return ""
}

func binaryAt(b []byte, i int) string {
	return fmt.Sprintf("a binary file (byte 0x%02x at offset %d)", b[i], i)
}
