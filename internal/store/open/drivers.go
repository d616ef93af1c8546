package open

import (
	"context"
	"fmt"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
)

// driver is a kind of store.
type driver struct {
	schemes []string
	form    string                 // how its URL looks, for errors and helps
	beside  bool                   // it serves only beside another store, which comes first
	check   func(url string) error // refuses what open would refuse without a look at any store
	open    func(ctx context.Context, url string, o Options) (store.Store, error)
}

// drivers are the kinds of stores in the order in which an error lists them. The first also takes bare paths.
func drivers() []driver {
	return []driver{
		{schemes: []string{"file"}, form: "file:DIR, file:///DIR or a path", check: checkFile, open: openFile},
		{schemes: []string{"warc"}, form: "warc:DIR?compress=zstd", check: checkWARC, open: openWARC},
		{schemes: []string{"s3"}, form: "s3://BUCKET/PREFIX?endpoint=URL", check: checkS3, open: openS3},
		{schemes: []string{"postgres", "postgresql"}, form: "postgres://USER@HOST/DATABASE", check: pgstore.Check, open: openPostgres},
		{schemes: []string{"jsonl"}, form: "jsonl:- beside another", check: checkLines, open: openLines, beside: true},
	}
}

// opened makes an interface of what a driver returned; of a nil pointer none, which would not be nil.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func checkFile(raw string) error {
	_, err := folder(raw)
	return err
}

// openFile opens a store in a folder: "file:DIR", "file:///DIR" or a bare path.
func openFile(ctx context.Context, raw string, o Options) (store.Store, error) {
	dir, err := folder(raw)
	if err != nil {
		return nil, err
	}
	if err := exists(raw, dir, o); err != nil {
		return nil, err
	}
	return opened(filestore.Open(ctx, dir, filestore.Options{Sync: o.Sync, Worker: o.Worker, Names: o.Names}))
}

// openWARC opens a store of WARC files in a folder: "warc:DIR" or "warc:///DIR", with parameters behind a question mark.
func openWARC(ctx context.Context, raw string, o Options) (store.Store, error) {
	dir, options, err := parseWARC(raw, warcstore.Options{Sync: o.Sync, Worker: o.Worker, MustExist: o.MustExist,
		DedupeIndex: o.DedupeIndex, Software: o.Software})
	if err != nil {
		return nil, err
	}
	return opened(warcstore.Open(ctx, dir, options))
}

func parseWARC(raw string, o warcstore.Options) (dir string, _ warcstore.Options, err error) {
	place, o, err := warcstore.Parse(raw, o)
	if err != nil {
		return "", o, fmt.Errorf("open %w", err)
	}
	dir, err = folder(place)
	return dir, o, err
}

func checkWARC(raw string) error {
	_, _, err := parseWARC(raw, warcstore.Options{})
	return err
}

// openS3 opens a store in a bucket.
func openS3(ctx context.Context, raw string, o Options) (store.Store, error) {
	options, err := s3store.Parse(raw)
	if err != nil {
		return nil, err
	}
	options.Worker, options.MustExist = o.Worker, o.MustExist
	if options.Format == s3store.FormatWARC {
		return opened(s3store.OpenArchive(ctx, options))
	}
	return opened(s3store.Open(ctx, options))
}

func checkS3(raw string) error {
	_, err := s3store.Parse(raw)
	return err
}

// openPostgres opens a store in a PostgreSQL database.
func openPostgres(ctx context.Context, raw string, o Options) (store.Store, error) {
	return opened(pgstore.Open(ctx, raw, pgstore.Options{Sync: o.Sync, Worker: o.Worker, MustExist: o.MustExist}))
}

func openLines(ctx context.Context, raw string, o Options) (store.Store, error) {
	return opened(jsonl.Open(ctx, target(raw), jsonl.Options{Out: o.Stdout, Gone: o.Gone}))
}

func checkLines(raw string) error { return jsonl.Check(target(raw)) }

func target(raw string) string { return raw[len("jsonl:"):] }
