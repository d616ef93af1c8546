package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// Archive is a store of WARC records in a bucket. It implements store.Store, store.Resumer and store.Verifier.
type Archive struct {
	base
	shop   *warcunit.Workshop
	layout *warcunit.Layout // once known; guarded by mu
	onePut int64            // the most bytes of a unit that one PUT sends; tests make it smaller
	pieced conditionality   // of uploads in pieces; guarded by mu
}

var (
	_ store.Resumer        = (*Archive)(nil)
	_ store.Verifier       = (*Archive)(nil)
	_ store.ExchangeKeeper = (*archiveUnit)(nil)
)

// OpenArchive opens the store that the options, of FormatWARC, name. It makes a call or two, which tell a bucket that is
// missing, keys that are wrong and a server that cannot be reached; it writes nothing. Check tells whether it can be
// written to.
func OpenArchive(ctx context.Context, o Options) (*Archive, error) {
	o.Format = FormatWARC
	err := o.check()
	if err == nil {
		var s *Archive
		if s, err = openArchive(ctx, o); err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("open store %s: %w", o, err)
}

func openArchive(ctx context.Context, o Options) (*Archive, error) {
	s := &Archive{onePut: onePut}
	s.shop = &warcunit.Workshop{Decoded: o.Decoded, Tmp: s.tmpPath, Create: createTmp, Open: s.openAt, Ended: s.ended}
	if err := s.connect(ctx, o); err != nil {
		return nil, err
	}
	_, err := s.readLayout(ctx)
	if isMissing(err) {
		err = s.lookOutside(ctx, s.keys.identity(), "format=file", err)
	}
	if err != nil {
		s.disconnect()
		return nil, err
	}
	return s, nil
}

// tmpPath returns the path of a temporary file.
func (s *Archive) tmpPath(_, name string) string {
	dir := s.o.SpoolDir
	if dir == "" {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "fetchfleet-s3-"+name)
}

func createTmp(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
}

// Begin starts a unit. The first one of a store writes the store's layout.
func (s *Archive) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkNames(job, name); err != nil {
		return nil, fmt.Errorf("begin unit: %w", err)
	}
	l, err := s.agree(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin unit %s: %w", name, err)
	}
	stem, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("begin unit %s: %w", name, err)
	}
	u := &archiveUnit{s: s, job: job, name: name, stem: stem, kind: l.Compress}
	u.Unit = s.shop.NewUnit(job, name, stem, l.Compress)
	return u, nil
}

// Identity returns the store's identity, which it makes at its first use.
func (s *Archive) Identity(ctx context.Context) (string, error) {
	l, err := s.agree(ctx)
	if err != nil {
		return "", fmt.Errorf("identify store: %w", err)
	}
	return l.Identity, nil
}

// agree returns the layout that is there, or puts one: the first wins.
func (s *Archive) agree(ctx context.Context) (*warcunit.Layout, error) {
	l, err := s.readLayout(ctx)
	if !isMissing(err) {
		return l, err
	}
	kind := warc.Compression(s.o.Compress)
	if kind == "" {
		kind = warc.Gzip
	}
	_, err = s.c.put(ctx, s.keys.archive(), inMemory(warcunit.NewLayout(kind).Encode()), "application/json", condition{absent: true})
	if err != nil && !errors.Is(err, errTaken) {
		return nil, err
	}
	return s.readLayout(ctx)
}

// readLayout returns the store's layout, or an error of which isMissing is true.
func (s *Archive) readLayout(ctx context.Context) (*warcunit.Layout, error) {
	s.mu.Lock()
	l := s.layout
	s.mu.Unlock()
	if l != nil {
		return l, nil
	}
	o, err := s.c.get(ctx, s.keys.archive(), 4096)
	if err != nil {
		return nil, err
	}
	l, whole := warcunit.ParseLayout(o.data)
	if !whole {
		return nil, fmt.Errorf("%s holds no layout that this program knows: a newer version wrote it, then use that one, "+
			"or it is damaged, then choose another prefix", s.keys.archive())
	}
	if err := l.Accept(warc.Compression(s.o.Compress)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layout = l
	return l, nil
}

// OpenBody opens a body by the Body field of its record, decoded. Its last Read fails if the record is damaged. A transfer
// that is cut goes on by itself from where it was.
func (s *Archive) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	return s.shop.OpenBody(ctx, job, body)
}

// Sweep removes what dead workers left in a job, as far as it was last changed longer than olderThan ago by the server's
// clock: uploads of large units, and bodies whose transfer was cut and that nobody holds. It returns how many things it
// removed. What is not large leaves nothing behind.
func (s *Archive) Sweep(ctx context.Context, job string, olderThan time.Duration) (removed int, err error) {
	if err := store.CheckName("job", job); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	sw := s.newSweep(job, s.now(ctx, s.keys.archive()), olderThan)
	for _, step := range []func(context.Context) error{sw.probes, sw.parts, sw.uploads} {
		if err := step(ctx); err != nil {
			return sw.removed, fmt.Errorf("sweep job %s: %w", job, err)
		}
	}
	return sw.removed, nil
}
