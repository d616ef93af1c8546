package warcunit

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// original is an answer whose payload came again: what a revisit record says of it.
type original struct {
	body     string // as a record of the job has it; "" is none
	offset   int64
	id       string // in the form of WARC-Record-ID
	url      string
	at       time.Time
	encoding string // content codings that its decoded form undoes
}

// The shape of known: ways digests in each of sets, which are allocated as they fill. A digest costs 24 bytes, so a full
// table of a million has about 28 MB, and its units' names.
const (
	ways = 8
	sets = 1 << 17
)

// known remembers where in committed units payloads lie, by their digests: the last ones that were stored or asked for. The
// zero value is empty.
type known struct {
	mu    sync.Mutex
	seed  maphash.Seed
	sets  [][]payloadAt // in each the last one used comes first
	units []knownUnit
	free  []uint32
	cache map[payloadAt]original
}

// payloadAt is where a payload lies. A key of 96 bits may deceive; the record that is found tells.
type payloadAt struct {
	key    [12]byte
	unit   uint32 // index of units
	offset int64
}

type knownUnit struct {
	job, name string
	refs      int // how many payloads are in it
}

func (k *known) init() {
	if k.sets == nil {
		k.seed = maphash.MakeSeed()
		k.sets = make([][]payloadAt, sets)
		k.cache = make(map[payloadAt]original)
	}
}

// slot returns set and key of a payload in a job. "" stands for the jobs of the dedupe index.
func (k *known) slot(job string, d warc.Digest) (set uint32, key [12]byte) {
	copy(key[:], d[4:])
	h := maphash.String(k.seed, job)
	for i := range 8 {
		key[i] ^= byte(h >> (8 * i))
	}
	return (uint32(d[0]) | uint32(d[1])<<8 | uint32(d[2])<<16) % sets, key
}

// add remembers the payloads of a committed unit.
func (k *known) add(job, unit string, own map[warc.Digest]original) {
	if len(own) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.init()
	u := k.newUnit(job, unit)
	for d, o := range own {
		k.put(job, d, u, o.offset)
	}
	k.release(u)
}

// newUnit returns a unit that the caller holds until release.
func (k *known) newUnit(job, name string) uint32 {
	u := knownUnit{job: job, name: name, refs: 1}
	if n := len(k.free); n > 0 {
		i := k.free[n-1]
		k.free = k.free[:n-1]
		k.units[i] = u
		return i
	}
	k.units = append(k.units, u)
	return uint32(len(k.units) - 1)
}

func (k *known) release(u uint32) {
	if k.units[u].refs--; k.units[u].refs == 0 {
		k.units[u] = knownUnit{}
		k.free = append(k.free, u)
	}
}

// put places a payload before the others of its set; the last of a full one goes.
func (k *known) put(job string, d warc.Digest, unit uint32, offset int64) {
	set, key := k.slot(job, d)
	k.units[unit].refs++
	list := k.sets[set]
	if len(list) == ways {
		k.release(list[ways-1].unit)
		list = list[:ways-1]
	}
	list = append(list, payloadAt{})
	copy(list[1:], list)
	list[0] = payloadAt{key: key, unit: unit, offset: offset}
	k.sets[set] = list
}

// find returns where a payload lies.
func (k *known) find(job string, d warc.Digest) (at payloadAt, u knownUnit, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sets == nil {
		return at, u, false
	}
	set, key := k.slot(job, d)
	list := k.sets[set]
	for i, e := range list {
		if e.key == key {
			copy(list[1:], list[:i])
			list[0] = e
			return e, k.units[e.unit], true
		}
	}
	return at, u, false
}

// cached and keep remember the originals that were read last, since payloads that come again come often.
func (k *known) cached(at payloadAt) (original, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o, ok := k.cache[at]
	return o, ok
}

func (k *known) keep(at payloadAt, o original) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.cache) >= 1024 {
		clear(k.cache)
	}
	k.cache[at] = o
}

// earlier returns the answer that had the same payload before, in this unit, in a committed one of the job, or in the
// dedupe index; the zero original if there is none, or if it cannot be read.
func (u *Unit) earlier(d warc.Digest, encoding string) original {
	u.mu.Lock()
	o, ok := u.own[d]
	u.mu.Unlock()
	if ok && o.encoding == encoding {
		return o
	}
	for _, job := range []string{u.job, ""} {
		at, in, ok := u.s.known.find(job, d)
		if !ok {
			continue
		}
		o, ok := u.s.known.cached(at)
		if !ok {
			var err error
			if o, err = u.s.readOriginal(in, at.offset, d); err != nil {
				continue
			}
			u.s.known.keep(at, o)
		}
		if in.job != u.job {
			o.body = "../" + in.job + "/" + o.body
		}
		if o.encoding == encoding {
			return o
		}
	}
	return original{}
}

// lookLimit is how long it may take to look at an earlier answer. A revisit record is worth no more waiting.
const lookLimit = 2 * time.Second

var errOther = errors.New("another payload")

// readOriginal reads what a revisit record says of an answer. Only a whole one with that very payload will do.
func (s *Workshop) readOriginal(in knownUnit, offset int64, d warc.Digest) (o original, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookLimit)
	defer cancel()
	b, err := s.openRecord(ctx, in.job, in.name, offset)
	if err != nil {
		return o, err
	}
	defer func() { _ = b.Close() }()
	r := b.record
	if r.Get("WARC-Payload-Digest") != d.String() || r.Type() != warc.Response && r.Type() != warc.Resource || r.Get("WARC-Truncated") != "" {
		return o, errOther
	}
	o = original{
		body: BodyName(in.name, offset), offset: offset, id: r.Get("WARC-Record-ID"), url: r.Get("WARC-Target-URI"),
		encoding: r.Get(encodingField),
	}
	o.at, err = time.Parse(time.RFC3339Nano, r.Get("WARC-Date"))
	return o, err
}
