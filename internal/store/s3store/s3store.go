// Package s3store keeps a store in a bucket of an S3 server: Amazon's or a compatible one. Store has an object for each
// body (format=file):
//
//	PREFIX/.fetchfleet-store             the store's identity
//	PREFIX/JOB/accounts/UNIT.json        accounts, each with its unit's records: a unit exists once its account does
//	PREFIX/JOB/records/UNIT.jsonl        the records once more, one JSON object a line; none where a unit has no record
//	PREFIX/JOB/bodies/ab/SHA256.EXT      bodies, named by their digest
//	PREFIX/JOB/tmp/WORKER~RUN~N~M        large bodies being uploaded: worker, run of it, number of the unit, of the body
//	PREFIX/JOB/parts/REQUEST.json        what is known of a large body whose transfer was cut
//	PREFIX/JOB/parts/REQUEST.bytes~…     the upload of its beginning, and the object that it becomes
//
// That is the layout of package filestore, so that a copy of PREFIX in a folder can be opened as file:DIR, and a folder
// copied to PREFIX as s3:.
//
// Archive has one object for each unit, which holds WARC records as package warcunit makes them (format=warc):
//
//	PREFIX/.fetchfleet-warc              identity, layout version and compression of the store
//	PREFIX/JOB/units/UNIT.warc.gz        units (.warc.zst with zstd)
//	PREFIX/JOB/parts/                    as above
//
// That is the layout of package warcstore before anything was merged there: a copy of PREFIX in a folder can be opened as
// warc:DIR, and be merged. Nothing is merged in a bucket, where nothing can be appended or linked; and what was merged in a
// folder is not found in a copy of it in a bucket.
//
// Both promise that the first committed unit of a name wins (PUT with If-None-Match), that a unit is whole as soon as it
// is visible, that the server has checked the digest of every byte before it kept it, and that memory does not grow
// with bodies: what is not yet sent waits in nameless files, of a Store at most one piece (8 MiB) for each body under way, of
// an Archive whole bodies and units. What a crash leaves is removed, or completed, by Sweep. A call to a server that is
// gone fails within about ten seconds.
//
// It needs a server with conditional PUTs: Amazon S3 (since 2024), MinIO, Ceph (since Squid), Cloudflare R2, versitygw.
// A Store does not promise that every object under bodies belongs to a record: a unit that lost the race for its name, or
// that was discarded or died before its commit, leaves whole bodies behind. An Archive does not promise that an answer
// without a record (a redirect, one that was cut) is kept when its unit was handed back or lost that race.
package s3store

import (
	"context"
	"fmt"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Store is a store in a bucket, with an object for each body. It implements store.Store, store.Resumer and store.Verifier.
type Store struct {
	base
	identity  string // once known; guarded by mu
	copyLimit int64
}

var (
	_ store.Resumer  = (*Store)(nil)
	_ store.Verifier = (*Store)(nil)
)

// Open opens the store that the options name. It makes one call, which tells a bucket that is missing, keys that are
// wrong and a server that cannot be reached; it writes nothing. Check tells whether it can be written to.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o, err)
	}
	if o.Format == FormatWARC {
		return nil, fmt.Errorf("open store %s: it is one of WARC files: use OpenArchive", o)
	}
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o, err)
	}
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{copyLimit: copyLimit}
	if err := s.connect(ctx, o); err != nil {
		return nil, err
	}
	if err := s.look(ctx); err != nil {
		s.disconnect()
		return nil, err
	}
	return s, nil
}

// look reads the identity, if there is one.
func (s *Store) look(ctx context.Context) error {
	id, err := s.readIdentity(ctx)
	if isMissing(err) {
		return s.lookOutside(ctx, s.keys.archive(), "format=warc", err)
	}
	s.identity = id
	return err
}

// Begin starts a unit. It makes no call.
func (s *Store) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkNames(job, name); err != nil {
		return nil, fmt.Errorf("begin unit: %w", err)
	}
	stem, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("begin unit %s: %w", name, err)
	}
	return &unit{s: s, job: job, name: name, stem: stem}, nil
}
