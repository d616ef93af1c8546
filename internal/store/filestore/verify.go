package filestore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

var _ store.Verifier = (*Store)(nil)

// temporaryAge is how old what lies under tmp must be to be the remains of somebody dead. A unit whose files have all
// been left alone for longer is not being written any more, or its commit will fail and its batch be worked again.
const temporaryAge = time.Hour

// mostNamed is how many findings of one kind are named one by one; the rest are one finding together.
const mostNamed = 20

// Verify looks at a job's files: names that this driver does not give, records without an account, bodies that no
// record of the job refers to (notes: the package comment allows them), and what lies under tmp: what is younger than
// an hour is a note, what is older a problem, which repair removes, or puts in place where its unit was committed.
//
// Accounts and records that are torn are not told here: they are visible, and package verify reads them. A job
// that does not exist has nothing to find. It takes one look at each file and one reading of all records; memory grows
// by about 40 bytes a body.
func (s *Store) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	if err := store.CheckName("job", job); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	v := &verification{s: s, ctx: ctx, job: job, repair: repair, found: found, known: make(map[bodyKey]bool)}
	for _, part := range []func() error{v.accounts, v.records, v.bodies, v.parts, v.temporaries} {
		if err := part(); err != nil {
			return fmt.Errorf("verify files of job %s: %w", job, err)
		}
	}
	return nil
}

// bodyKey stands for the Body field of a record.
type bodyKey [16]byte

func keyOf(body string) bodyKey {
	sum := sha256.Sum256([]byte(body))
	return bodyKey(sum[:16])
}

// verification is one call of Verify.
type verification struct {
	s      *Store
	ctx    context.Context
	job    string
	repair bool
	found  func(store.Finding)
	known  map[bodyKey]bool // bodies that records refer to
	looks  int              // directory entries and files that were looked at
}

// wrong tells a problem of which there may be many.
func (v *verification) wrong(r *repeated, kind, path, format string, args ...any) {
	r.kind = kind
	if r.n++; r.n <= mostNamed {
		v.found(store.Finding{Kind: kind, Where: v.where(path), What: fmt.Sprintf(format, args...)})
	}
}

// rest tells how many problems were not named.
func (v *verification) rest(r *repeated, folder, what string) {
	if r.n > mostNamed {
		v.found(store.Finding{Kind: r.kind, Where: folder, What: fmt.Sprintf("%d more %s", r.n-mostNamed, what)})
	}
}

// repeated counts problems of one kind.
type repeated struct {
	kind string
	n    int
}

// where is a path below the store's folder.
func (v *verification) where(path string) string { return strings.TrimPrefix(path, v.s.dir+sep) }

func (v *verification) entries(folder string) func(func(os.DirEntry, error) bool) {
	return func(yield func(os.DirEntry, error) bool) {
		for e, err := range disk.Entries(v.ctx, v.s.jobPath(v.job, folder)) {
			v.looks++
			if !yield(e, err) {
				return
			}
		}
	}
}

// unitOf returns the unit that a file under accounts or records is of.
func unitOf(e os.DirEntry, ending string) (string, bool) {
	unit, ok := strings.CutSuffix(e.Name(), ending)
	return unit, ok && e.Type().IsRegular() && store.CheckName("unit", unit) == nil
}

// accounts finds what is no account.
func (v *verification) accounts() error {
	var foreign repeated
	for e, err := range v.entries(accountsFolder) {
		if err != nil {
			return err
		}
		if _, ok := unitOf(e, ".json"); !ok {
			v.foreign(&foreign, accountsFolder, e)
		}
	}
	v.rest(&foreign, v.where(v.s.jobPath(v.job, accountsFolder)), "files that are no accounts")
	return nil
}

// foreign tells a file that this driver did not make. It is left alone.
func (v *verification) foreign(r *repeated, folder string, e os.DirEntry) {
	if strings.HasPrefix(e.Name(), ".") { // a desktop's or an NFS server's own
		return
	}
	v.wrong(r, "structure", v.s.jobPath(v.job, folder)+sep+e.Name(), "is no file of this store: move it away")
}

// records finds records that no account makes visible, and notes the bodies that the others refer to.
func (v *verification) records() error {
	var foreign, orphans repeated
	for e, err := range v.entries(recordsFolder) {
		if err != nil {
			return err
		}
		unit, ok := unitOf(e, ".jsonl")
		if !ok {
			v.foreign(&foreign, recordsFolder, e)
			continue
		}
		v.looks++
		a, _, err := v.s.readAccount(v.ctx, v.job, unit)
		path := v.s.recordsPath(v.job, unit)
		switch {
		case errors.Is(err, store.ErrNotFound):
			v.wrong(&orphans, "orphan", path, "are records without an account: the account was lost, or the file was put there by hand")
		case err == nil && a.Records == 0:
			v.wrong(&orphans, "orphan", path, "are records of a unit whose account says that it has none")
		}
		if err := v.references(path); err != nil {
			return err
		}
	}
	v.rest(&foreign, v.where(v.s.jobPath(v.job, recordsFolder)), "files that are no records")
	v.rest(&orphans, v.where(v.s.jobPath(v.job, recordsFolder)), "files of records without an account")
	return v.ctx.Err()
}

// references notes the bodies of one records file, as far as it can be read: what is torn is told by package verify.
func (v *verification) references(path string) error {
	v.looks++
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return disk.Trouble("open", path, err)
	}
	defer func() { _ = f.Close() }()
	dec := json.NewDecoder(bufio.NewReaderSize(f, bufferSize))
	for {
		var r struct {
			Body string `json:"body"`
		}
		if err := dec.Decode(&r); err != nil {
			return nil
		}
		if r.Body != "" {
			v.known[keyOf(r.Body)] = true
		}
	}
}

// bodies counts those that no record refers to.
func (v *verification) bodies() error {
	var n, size int64
	if err := v.unreferred(bodiesFolder, 0, &n, &size); err != nil {
		return err
	}
	if n > 0 {
		v.found(store.Finding{Kind: "orphan", Where: v.where(v.s.jobPath(v.job, bodiesFolder)), Note: true, What: fmt.Sprintf(
			"bodies that no record of this job refers to, left by units that were not committed: %d, %d bytes in all; they may be removed when the job has ended", n, size)})
	}
	return nil
}

// unreferred adds up a folder of bodies and those below it. folder has slashes, as the Body field of a record.
func (v *verification) unreferred(folder string, depth int, n, size *int64) error {
	if depth > maxDepth { // no body was put deeper
		return nil
	}
	for e, err := range v.entries(strings.ReplaceAll(folder, "/", sep)) {
		if err != nil {
			return err
		}
		name := folder + "/" + e.Name()
		if e.IsDir() {
			if err := v.unreferred(name, depth+1, n, size); err != nil {
				return err
			}
			continue
		}
		if v.known[keyOf(name)] {
			continue
		}
		v.looks++
		if fi, err := e.Info(); err == nil { // else it is gone
			*n++
			*size += fi.Size()
		}
	}
	return nil
}

// parts notes bodies that wait for another attempt.
func (v *verification) parts() error {
	n, size, err := v.s.parts(v.job).Count(v.ctx)
	if n > 0 {
		v.found(store.Finding{Kind: "temporary", Where: v.where(v.s.jobPath(v.job, partsFolder)), Note: true,
			What: fmt.Sprintf("bodies that are being fetched or wait for another attempt: %d, %d bytes so far", n, size)})
	}
	return err
}

// temporary is what was found under tmp of one unit.
type temporary struct {
	files []os.DirEntry
	last  time.Time // when the youngest of them was changed
}

// temporaries tells what lies under tmp, unit by unit: the large body that is being written keeps alive those that are
// whole and wait for it.
func (v *verification) temporaries() error {
	units := make(map[string]*temporary)
	for e, err := range v.entries(tmpFolder) {
		if err != nil {
			return err
		}
		v.looks++
		fi, err := e.Info()
		if err != nil {
			continue // gone
		}
		t := units[stemOf(e.Name())]
		if t == nil {
			t = &temporary{}
			units[stemOf(e.Name())] = t
		}
		t.files = append(t.files, e)
		if fi.ModTime().After(t.last) {
			t.last = fi.ModTime()
		}
	}
	before, young := time.Now().Add(-temporaryAge), 0
	for stem, t := range units {
		if t.last.After(before) || v.s.isLive(stem) {
			young += len(t.files)
			continue
		}
		if err := v.remains(t); err != nil {
			return err
		}
	}
	if young > 0 {
		v.found(store.Finding{Kind: "temporary", Where: v.where(v.s.jobPath(v.job, tmpFolder)), Note: true,
			What: fmt.Sprintf("%d files of units that are being written, or whose worker died less than %v ago", young, temporaryAge)})
	}
	return nil
}

// remains tells what somebody dead left, and removes it.
func (v *verification) remains(t *temporary) error {
	folder := v.s.jobPath(v.job, tmpFolder)
	for _, e := range t.files {
		f := store.Finding{Kind: "temporary", Where: v.where(folder + sep + e.Name()),
			What: "was left by a worker that died; last changed at " + t.last.UTC().Format(time.RFC3339)}
		if v.repair && !e.IsDir() {
			if err := v.s.sweepFile(v.ctx, v.job, folder, e.Name()); err != nil {
				return err
			}
			f.Mended = true
		}
		v.found(f)
	}
	return nil
}
