package warc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// frame reads the bytes of one zstd frame and no more, which the decoder alone would not (RFC 8878, section 3.1.1).
type frame struct {
	src      *bufio.Reader
	left     int  // bytes of the current piece
	last     bool // whether the current piece ends the frame
	checksum bool
	blocks   bool // whether the header was read
}

var errFrame = errors.New("no zstd frame")

// Read implements io.Reader.
func (f *frame) Read(p []byte) (int, error) {
	for f.left == 0 {
		if f.last {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.src.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, noEOF(err)
}

// next measures the next piece: the header, a block, or the checksum.
func (f *frame) next() error {
	if !f.blocks {
		return f.header()
	}
	head, err := f.src.Peek(3)
	if err != nil {
		return noEOF(err)
	}
	block := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	size := block >> 3
	switch block >> 1 & 3 {
	case 1:
		size = 1 // a run of one byte
	case 3:
		return errFrame
	}
	f.left = 3 + size
	f.last = block&1 != 0
	if f.last && f.checksum {
		f.left += 4
	}
	return nil
}

func (f *frame) header() error {
	head, err := f.src.Peek(5)
	if err != nil {
		return noEOF(err)
	}
	d := head[4]
	single := d>>5&1 != 0
	f.left = 5 + []int{0, 1, 2, 4}[d&3] + []int{0, 2, 4, 8}[d>>6]
	if !single || d>>6 == 0 {
		f.left++ // the window, or a content size of one byte
	}
	f.checksum = d>>2&1 != 0
	f.blocks = true
	return nil
}

// isSkippable reports whether a skippable frame begins with this magic number.
func isSkippable(magic []byte) bool { return binary.LittleEndian.Uint32(magic)&^15 == 0x184d2a50 }
