package earlier

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// Index finds what an earlier job has of a request. Ten million requests take 160 MB of memory, and up to an eighth
// more, and about 4 GB of a temporary file; those that an origin cannot be asked by take nothing.
type Index struct {
	job   tasks.JobID
	tally Tally
	file  *os.File
	// shards hold the places by the first byte of the hash, sorted: one that grows is copied, not all.
	shards [256][]place
	buffer []byte
}

// place is where the file has an entry: the request's id, and then what is known of it as JSON.
type place struct {
	hash uint64 // the first half of the id
	at   uint64 // offset << lengthBits | length
}

const (
	lengthBits = 20 // an entry has a few hundred bytes
	idLength   = 16
)

// NewIndex reads a job. The temporary file lies where the system keeps such files (TMPDIR), and is removed by Close.
func NewIndex(ctx context.Context, s store.Store, job tasks.JobID) (x *Index, err error) {
	x = &Index{job: job}
	if x.file, err = os.CreateTemp("", "fetchfleet-since-*"); err != nil {
		return nil, fmt.Errorf("index of job %s: %w", job, err)
	}
	if err := x.fill(ctx, s); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	for i := range x.shards {
		slices.SortFunc(x.shards[i], func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
	}
	return x, nil
}

func (x *Index) fill(ctx context.Context, s store.Store) error {
	out := bufio.NewWriterSize(x.file, 256<<10)
	offset := uint64(0)
	err := audit.Each(ctx, s, x.job, func(r *store.Record) error {
		x.tally.Records++
		since := Of(r)
		if since == nil {
			return nil
		}
		entry, err := encode(r.ID, since)
		if err != nil || len(entry) >= 1<<lengthBits {
			return err // one that long is fetched anew
		}
		if _, err := out.Write(entry); err != nil {
			return fmt.Errorf("index of job %s: %w: it needs about 400 bytes a request; TMPDIR says where", x.job, err)
		}
		p := place{hash: binary.BigEndian.Uint64(entry), at: offset<<lengthBits | uint64(len(entry))}
		x.shards[entry[0]] = append(x.shards[entry[0]], p)
		x.tally.Conditional++
		offset += uint64(len(entry))
		return nil
	})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("index of job %s: %w: it needs about 400 bytes a request; TMPDIR says where", x.job, err)
	}
	return nil
}

// encode writes an entry.
func encode(id string, s *tasks.Since) ([]byte, error) {
	entry := make([]byte, idLength, 512)
	if n, err := hex.Decode(entry, []byte(id[:min(len(id), 2*idLength)])); err != nil || n != idLength {
		return nil, fmt.Errorf("request id %q is not 32 hex digits", id)
	}
	text, err := json.Marshal(s)
	return append(entry, text...), err
}

// Tally returns what was found of the job. Left is 0: the list brings the requests.
func (x *Index) Tally() Tally { return x.tally }

// Find returns what the job has of the request that has no body and is made of these; nil if that is nothing to ask the
// origin by. It is not for several goroutines at once.
func (x *Index) Find(method, url, key string) (*tasks.Since, error) {
	id := tasks.NewRequestID(x.job, method, url, key, nil)
	var raw [idLength]byte
	if _, err := hex.Decode(raw[:], []byte(id)); err != nil {
		return nil, err
	}
	hash, shard := binary.BigEndian.Uint64(raw[:]), x.shards[raw[0]]
	i, _ := slices.BinarySearchFunc(shard, hash, func(p place, h uint64) int { return cmp.Compare(p.hash, h) })
	for ; i < len(shard) && shard[i].hash == hash; i++ {
		entry, err := x.read(shard[i])
		if err != nil {
			return nil, err
		}
		if [idLength]byte(entry) != raw {
			continue // half of the id is the same by chance
		}
		s := &tasks.Since{}
		if err := json.Unmarshal(entry[idLength:], s); err != nil {
			return nil, fmt.Errorf("index of job %s: %w", x.job, err)
		}
		return s, nil
	}
	return nil, nil
}

// read returns an entry, which is valid until the next call.
func (x *Index) read(p place) ([]byte, error) {
	length := int(p.at & (1<<lengthBits - 1))
	x.buffer = slices.Grow(x.buffer[:0], length)[:length]
	if _, err := x.file.ReadAt(x.buffer, int64(p.at>>lengthBits)); err != nil {
		return nil, fmt.Errorf("index of job %s: %w", x.job, err)
	}
	return x.buffer, nil
}

// Close removes the temporary file.
func (x *Index) Close() error {
	return errors.Join(x.file.Close(), os.Remove(x.file.Name()))
}
