package fetchtest

import (
	"bytes"
	"hash/fnv"
)

// DefaultPageSize is the size in bytes of a page for which none is given.
const DefaultPageSize = 2 << 10

// words fill the pages, so that they compress about as well as text does.
var words = []string{
	"fleet ", "harbour ", "anchor ", "pilot ", "ledger ", "cargo ", "tide ", "buoy ",
	"mast ", "keel ", "signal ", "watch ", "chart ", "berth ", "convoy ", "wake ",
}

// Page returns the HTML that /page/ANY answers with: always the same bytes for
// the same path (without query) and size. It is size bytes long; 0 means
// DefaultPageSize, and a size too small for the frame cuts it off.
func Page(path string, size int) []byte {
	if size <= 0 {
		size = DefaultPageSize
	}
	const foot = "</p></body></html>\n"
	var b bytes.Buffer
	b.Grow(size + 32)
	b.WriteString("<!doctype html><html><head><title>")
	b.WriteString(path)
	b.WriteString("</title></head><body><p>")
	hash := fnv.New64a()
	hash.Write([]byte(path))
	for state := hash.Sum64() | 1; b.Len() < size-len(foot); {
		state ^= state << 13 // xorshift64
		state ^= state >> 7
		state ^= state << 17
		b.WriteString(words[state>>60])
	}
	b.Truncate(max(min(b.Len(), size-len(foot)), 0))
	b.WriteString(foot)
	return b.Bytes()[:size]
}
