package s3store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// The folders of a job, and what is beside jobs.
const (
	accountsFolder = "accounts"
	recordsFolder  = "records"
	bodiesFolder   = "bodies"
	tmpFolder      = "tmp"
	partsFolder    = "parts"

	identityName = ".fetchfleet-store"
	probePrefix  = ".fetchfleet-tmp~"
)

// The endings of what is kept of a body whose transfer was cut.
const (
	partState = ".json"   // who holds it, and what it is
	partBytes = ".bytes~" // before a random number: an upload, and the object that it becomes
	partTail  = ".tail~"  // before a random number: bytes that are too few for a piece
)

// layout makes keys. It is the store's prefix with a slash behind it, or nothing.
type layout string

func newLayout(prefix string) layout {
	if prefix == "" {
		return ""
	}
	return layout(prefix + "/")
}

func (l layout) identity() string { return string(l) + identityName }
func (l layout) archive() string  { return string(l) + warcunit.LayoutFile }
func (l layout) unit(job, unit string, kind warc.Compression) string {
	return l.folder(job, warcunit.UnitsFolder) + unit + kind.Ext()
}
func (l layout) probe(name string) string       { return string(l) + probePrefix + name }
func (l layout) folder(job, name string) string { return string(l) + job + "/" + name + "/" }
func (l layout) account(job, unit string) string {
	return l.folder(job, accountsFolder) + unit + ".json"
}
func (l layout) records(job, unit string) string {
	return l.folder(job, recordsFolder) + unit + ".jsonl"
}
func (l layout) body(job, body string) string { return string(l) + job + "/" + body }
func (l layout) tmp(job, name string) string  { return l.folder(job, tmpFolder) + name }
func (l layout) partState(job, name string) string {
	return l.folder(job, partsFolder) + name + partState
}
func (l layout) partBytes(job, name, random string) string {
	return l.folder(job, partsFolder) + name + partBytes + random
}
func (l layout) partTail(job, name, random string) string {
	return l.folder(job, partsFolder) + name + partTail + random
}

// stateOf returns the key of the state that an upload's key or a tail's belongs to.
func stateOf(key string) string {
	for _, ending := range []string{partBytes, partTail} {
		if i := strings.LastIndex(key, ending); i >= 0 {
			return key[:i] + partState
		}
	}
	return key
}

func checkNames(job, unit string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("unit", unit)
}

// checkBody refuses a body name that this driver would not have made, so that no record can point outside its job.
func checkBody(body string) error {
	rest, ok := strings.CutPrefix(body, bodiesFolder+"/")
	folder, name, two := strings.Cut(rest, "/")
	if !ok || !two || len(folder) != 2 || store.CheckName("body", folder) != nil || store.CheckName("body", name) != nil {
		return fmt.Errorf("body name %.80q is not of the form bodies/ab/NAME: %w", body, store.ErrRecord)
	}
	return nil
}

// runName begins this Store value's temporary names: the worker, made safe for a key, and eight random bytes, because
// a restarted worker may have the same name.
func runName(worker string) string {
	if worker == "" {
		worker = "worker"
	}
	safe := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z') {
			return r
		}
		return '_'
	}, worker)
	if safe = safe[:min(len(safe), 40)]; safe[0] == '.' {
		safe = "_" + safe[1:]
	}
	return safe + "~" + randomHex(8)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// stemOf returns WORKER~RUN~N of a temporary name.
func stemOf(name string) string {
	end := 0
	for range 3 {
		i := strings.IndexByte(name[end:], '~')
		if i < 0 {
			return name
		}
		end += i + 1
	}
	return name[:end-1]
}
