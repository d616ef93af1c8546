package s3store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// retryFor is how long a call is tried again. What lasts longer is the store's trouble, which the caller waits out.
const retryFor = 4 * time.Second

// client speaks to one bucket. Its calls try again for a short while, never hang, and name what went wrong.
type client struct {
	quick   *minio.Core
	patient *minio.Core // for calls that may take minutes to answer
	lines   *lines
	o       Options
}

func newClient(o Options, creds *credentials.Credentials) (*client, error) {
	wires, err := newLines()
	if err != nil {
		return nil, err
	}
	endpoint, lookup := o.Endpoint, minio.BucketLookupPath
	if endpoint == "" {
		endpoint, lookup = "s3.amazonaws.com", minio.BucketLookupAuto
	}
	if pathStyle, err := strconv.ParseBool(o.PathStyle); err == nil {
		lookup = minio.BucketLookupDNS
		if pathStyle {
			lookup = minio.BucketLookupPath
		}
	}
	c := &client{lines: wires, o: o}
	options := minio.Options{Creds: creds, Secure: !o.Insecure, Region: o.Region, BucketLookup: lookup, MaxRetries: 1, Transport: wires.quick}
	if c.quick, err = minio.NewCore(endpoint, &options); err != nil {
		return nil, fmt.Errorf("endpoint %.80q: %w", endpoint, err)
	}
	options.Transport = wires.patient
	if c.patient, err = minio.NewCore(endpoint, &options); err != nil {
		return nil, fmt.Errorf("endpoint %.80q: %w", endpoint, err)
	}
	return c, nil
}

// do makes a call, and again while that may help, for retryFor at most.
func (c *client) do(ctx context.Context, verb, key string, call func() error) error {
	began := time.Now()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := ctx.Err()
		if err == nil {
			err = call()
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s %s: %w", verb, key, ctx.Err())
		case !mayPass(err) || time.Since(began)+wait > retryFor:
			return c.trouble(verb, key, err)
		}
		pause := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// payload is what a PUT sends; it can be sent again.
type payload struct {
	bytes io.ReaderAt
	size  int64
	sha   string // lower-case hex digest: the server refuses bytes that have another
}

func inMemory(data []byte) payload {
	sum := sha256.Sum256(data)
	return payload{bytes: bytes.NewReader(data), size: int64(len(data)), sha: hex.EncodeToString(sum[:])}
}

func (p payload) reader() io.Reader { return io.NewSectionReader(p.bytes, 0, p.size) }

// condition is when a PUT may take place. The zero value is always.
type condition struct {
	absent bool   // only if there is no such object yet
	etag   string // only if the object has this ETag
}

func (w condition) options() (o minio.PutObjectOptions) {
	if w.absent {
		o.SetMatchETagExcept("*")
	}
	if w.etag != "" {
		o.SetMatchETag(w.etag)
	}
	return o
}

// errTaken says that the condition of a PUT did not hold.
var errTaken = errors.New("the object is another's")

// put stores an object. When its condition does not hold it returns errTaken; so it does when an earlier attempt of the
// same call had succeeded and its answer was lost.
func (c *client) put(ctx context.Context, key string, p payload, contentType string, when condition) (etag string, err error) {
	o := when.options()
	o.ContentType, o.DisableContentSha256 = headerValue(contentType), true
	err = c.do(ctx, "write", key, func() error {
		info, err := c.quick.PutObject(ctx, c.o.Bucket, key, p.reader(), p.size, "", p.sha, o)
		if isRefused(err) || when.etag != "" && isMissing(err) {
			return errTaken
		}
		etag = info.ETag
		return err
	})
	return etag, err
}

// object is what there is under a key.
type object struct {
	data     []byte
	etag     string
	modified time.Time // by the server's clock, as now is
	now      time.Time
	size     int64
}

// get reads an object that has at most limit bytes.
func (c *client) get(ctx context.Context, key string, limit int64) (o object, err error) {
	err = c.do(ctx, "read", key, func() error {
		body, info, header, err := c.quick.GetObject(ctx, c.o.Bucket, key, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		o = object{etag: info.ETag, modified: info.LastModified, now: serverTime(header.Get("Date")), size: info.Size}
		o.data, err = io.ReadAll(io.LimitReader(body, limit+1))
		if err == nil && int64(len(o.data)) > limit {
			err = fmt.Errorf("it has %d bytes, more than %d: %w", info.Size, limit, errTooLarge)
		}
		return err
	})
	return o, err
}

var errTooLarge = errors.New("too large")

// serverTime reads a Date field (RFC 9110, section 6.6.1), and falls back to this machine's clock.
func serverTime(date string) time.Time {
	t, err := time.Parse(time.RFC1123, date)
	if err != nil {
		return time.Now()
	}
	return t
}

func (c *client) head(ctx context.Context, key string) (o object, err error) {
	err = c.do(ctx, "look at", key, func() error {
		info, err := c.quick.StatObject(ctx, c.o.Bucket, key, minio.StatObjectOptions{})
		o = object{etag: info.ETag, modified: info.LastModified, size: info.Size}
		return err
	})
	return o, err
}

// remove removes an object that may be gone.
func (c *client) remove(ctx context.Context, key string) error {
	return c.do(ctx, "remove", key, func() error {
		err := c.quick.RemoveObject(ctx, c.o.Bucket, key, minio.RemoveObjectOptions{})
		if isMissing(err) {
			return nil
		}
		return err
	})
}

// list yields the objects whose keys begin with prefix, in the order of their keys: one call for each thousand.
func (c *client) list(ctx context.Context, prefix string) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		after, left := "", false
		err := c.doWhileMoving(ctx, "list", prefix, func() (moved bool, err error) {
			o := minio.ListObjectsOptions{Prefix: prefix, Recursive: true, StartAfter: after}
			for info := range c.quick.ListObjectsIter(ctx, c.o.Bucket, o) {
				if info.Err != nil {
					return moved, info.Err
				}
				if strings.HasSuffix(info.Key, "/") { // a folder that someone made in a browser
					continue
				}
				after, moved = info.Key, true
				if !yield(info, nil) {
					left = true
					return moved, nil
				}
			}
			return moved, ctx.Err()
		})
		if err != nil && !left {
			yield(minio.ObjectInfo{}, err)
		}
	}
}

// doWhileMoving is do for a call of many steps: each step forward renews the time for which it is tried again.
func (c *client) doWhileMoving(ctx context.Context, verb, key string, call func() (moved bool, err error)) error {
	for {
		moved := false
		err := c.do(ctx, verb, key, func() error {
			m, err := call()
			moved = moved || m
			if m && err != nil && mayPass(err) && ctx.Err() == nil {
				return errMoved
			}
			return err
		})
		if !moved || !errors.Is(err, errMoved) {
			return err
		}
	}
}

// errMoved leaves do, to come back with time renewed.
var errMoved = errors.New("interrupted")
