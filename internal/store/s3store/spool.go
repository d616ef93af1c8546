package s3store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
)

// Sizes of pieces. S3 wants at least 5 MiB for all but the last, and at most 10,000 of them: 4,000 of 8 MiB and 6,000 of
// 64 MiB make 406 GiB.
const (
	smallPiece  = 8 << 20
	largePiece  = 64 << 20
	smallPieces = 4000
)

// pieceSize returns the size of a piece of an upload, by its number from 1.
func pieceSize(number int) int64 {
	if number <= smallPieces {
		return smallPiece
	}
	return largePiece
}

// spool keeps what is not yet sent in a file that has no name, so that a crash leaves nothing of it. In memory it would
// be a piece for every body under way, a gigabyte for 128 of them.
type spool struct {
	file *os.File
	size int64
	hash hash.Hash
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "fetchfleet-s3-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file for what is not yet uploaded: choose another folder with TMPDIR: %w", err)
	}
	_ = os.Remove(f.Name()) // some systems cannot remove an open file: then close does
	return &spool{file: f, hash: sha256.New()}, nil
}

// Write appends.
func (s *spool) Write(p []byte) (int, error) {
	n, err := s.file.WriteAt(p, s.size)
	s.hash.Write(p[:n])
	s.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("keep what is not yet uploaded in %s: %w", s.file.Name(), err)
	}
	return n, nil
}

func (s *spool) payload() payload {
	return payload{bytes: s.file, size: s.size, sha: hex.EncodeToString(s.hash.Sum(nil))}
}

// reset makes the spool empty. The file keeps its blocks, to be written again.
func (s *spool) reset() {
	s.size = 0
	s.hash.Reset()
}

// close drops the spool. It may be called again.
func (s *spool) close() {
	if s == nil || s.file == nil {
		return
	}
	_ = s.file.Close()
	_ = os.Remove(s.file.Name()) // mostly gone by now
	s.file = nil
}
