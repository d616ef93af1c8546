// Package warcunit makes and reads units of WARC records, wherever they are kept: what the drivers for folders and for
// buckets have in common. A unit is the bytes of one file:
//
//   - response, request, revisit, resource and conversion records, in the order in which the answers ended,
//   - metadata records with the unit's store.Records, a field each,
//   - one metadata record with the account, with a mark (package warc) from which account and records are found
//     without reading the rest.
//
// The metadata records are application/warc-fields, whose values are JSON, because tools that make indexes pass over that
// type. The Body of a record is "UNIT#OFFSET", the offset of a record of the unit.
//
// It promises that a unit which two drivers write has the same form, so that what one of them wrote the other reads, and
// that memory is bounded: what does not fit waits in temporary files. It does not commit anything: that is what drivers do.
package warcunit

import (
	"context"
	"os"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// Workshop is what the units of one Store share. Its fields are set before the first unit is begun; Tmp, Create, Open and
// Ended must be.
type Workshop struct {
	// Decoded keeps a decoded copy of each coded body as well, as a conversion record.
	Decoded bool
	// Named says that the temporary file of a large unit keeps its name, so that it can be linked.
	Named bool
	// Tmp returns the path of a temporary file of a job.
	Tmp func(job, name string) string
	// Create makes the file of such a path, which does not exist, for reading and writing.
	Create func(path string) (*os.File, error)
	// Open opens a committed unit, of which what lies at offset is read first, or answers store.ErrNotFound. Also for revisit
	// records, which say of the earlier answer what is read there.
	Open func(ctx context.Context, job, unit string, offset int64) (*Opened, error)
	// Ended is told the stem of each unit that has ended.
	Ended func(stem string)

	memory budget
	known  known
}

// The endings of temporary names.
const (
	TmpUnit = ".unit"
	tmpMeta = ".meta"
	tmpBody = ".body"
)

// NewUnit begins a unit. stem begins each of its temporary names and is unique for ever: WORKER~RUN~N.
func (s *Workshop) NewUnit(job, name, stem string, kind warc.Compression) *Unit {
	u := &Unit{s: s, job: job, name: name, stem: stem, kind: kind}
	u.data = spool{s: s, path: s.Tmp(job, stem+TmpUnit), unnamed: !s.Named}
	u.meta = spool{s: s, path: s.Tmp(job, stem+tmpMeta), unnamed: true}
	return u
}

// Held returns how many bytes beyond a small buffer each the units and bodies under way hold in memory.
func (s *Workshop) Held() int64 { return s.memory.used.Load() }

// Index remembers payloads that lie in units of a job, for the units of every job. fill is given what takes one.
func (s *Workshop) Index(job string, fill func(put func(unit, sha256 string, offset int64)) error) error {
	k := &s.known
	slots := make(map[string]uint32)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.init()
	err := fill(func(unit, sha256 string, offset int64) {
		d := parseDigest(sha256)
		if d == (warc.Digest{}) {
			return
		}
		u, ok := slots[unit]
		if !ok {
			u = k.newUnit(job, unit)
			slots[unit] = u
		}
		k.put("", d, u, offset)
	})
	for _, u := range slots {
		k.release(u)
	}
	return err
}
