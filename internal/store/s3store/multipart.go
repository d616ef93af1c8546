package s3store

import (
	"context"
	"fmt"
	"iter"

	"github.com/minio/minio-go/v7"
)

// copyLimit is the most bytes that one call copies on the server: it may take as long as patientStall. S3 itself
// allows 5 GiB.
const copyLimit = 1 << 30

// start begins a multipart upload.
func (c *client) start(ctx context.Context, key, contentType string) (id string, err error) {
	err = c.do(ctx, "begin upload of", key, func() (err error) {
		o := minio.PutObjectOptions{ContentType: headerValue(contentType)}
		id, err = c.quick.NewMultipartUpload(ctx, c.o.Bucket, key, o)
		return err
	})
	return id, err
}

// putPart sends one part of an upload. Sent twice under one number, the later takes the place of the earlier.
func (c *client) putPart(ctx context.Context, key, id string, number int, p payload) (etag string, err error) {
	o := minio.PutObjectPartOptions{DisableContentSha256: true, Sha256Hex: p.sha}
	err = c.do(ctx, "write a part of", key, func() error {
		part, err := c.quick.PutObjectPart(ctx, c.o.Bucket, key, id, number, p.reader(), p.size, o)
		etag = part.ETag
		return err
	})
	return etag, err
}

// complete makes an object of size bytes of an upload's parts. If the answer of an earlier attempt was lost, the upload
// is gone and the object is there. When its condition does not hold it returns errTaken; so it does when an earlier
// attempt of the same call had succeeded.
func (c *client) complete(ctx context.Context, key, id string, parts []minio.CompletePart, size int64, when condition) error {
	o := when.options()
	err := c.do(ctx, "complete upload of", key, func() error {
		_, err := c.patient.CompleteMultipartUpload(ctx, c.o.Bucket, key, id, parts, o)
		if isRefused(err) {
			return errTaken
		}
		return err
	})
	if when.absent && err != nil && codeOf(err) == minio.NoSuchUpload {
		if _, herr := c.head(ctx, key); herr == nil {
			return errTaken
		}
		return err
	}
	if err != nil && codeOf(err) == minio.NoSuchUpload {
		if o, herr := c.head(ctx, key); herr == nil && o.size == size {
			return nil
		}
	}
	return err
}

// abort drops an upload that may be gone.
func (c *client) abort(ctx context.Context, key, id string) error {
	return c.do(ctx, "abort upload of", key, func() error {
		err := c.quick.AbortMultipartUpload(ctx, c.o.Bucket, key, id)
		if err != nil && codeOf(err) == minio.NoSuchUpload {
			return nil
		}
		return err
	})
}

// hasUpload reports whether an upload is still under way.
func (c *client) hasUpload(ctx context.Context, key, id string) (there bool, err error) {
	err = c.do(ctx, "look at upload of", key, func() error {
		_, err := c.quick.ListObjectParts(ctx, c.o.Bucket, key, id, 0, 1)
		there = err == nil
		if err != nil && codeOf(err) == minio.NoSuchUpload {
			return nil
		}
		return err
	})
	return there, err
}

// uploads yields the multipart uploads that are under way for keys that begin with prefix.
func (c *client) uploads(ctx context.Context, prefix string) iter.Seq2[minio.ObjectMultipartInfo, error] {
	return func(yield func(minio.ObjectMultipartInfo, error) bool) {
		var page minio.ListMultipartUploadsResult
		for {
			key, id := page.NextKeyMarker, page.NextUploadIDMarker
			err := c.do(ctx, "list uploads of", prefix, func() (err error) {
				page, err = c.quick.ListMultipartUploads(ctx, c.o.Bucket, prefix, key, id, "", 1000)
				return err
			})
			if err != nil {
				yield(minio.ObjectMultipartInfo{}, err)
				return
			}
			for _, u := range page.Uploads {
				if !yield(u, nil) {
					return
				}
			}
			if !page.IsTruncated {
				return
			}
		}
	}
}

// copying says what copyTo copies.
type copying struct {
	from, to string // keys of this bucket
	size     int64
	kind     string // Content-Type of the copy
	limit    int64  // the most bytes that one call copies
	note     func(id string, begun bool)
}

// copyTo copies an object on the server.
func (c *client) copyTo(ctx context.Context, o copying) error {
	if o.size > o.limit {
		return c.copyInParts(ctx, o)
	}
	fields := map[string]string{"x-amz-metadata-directive": "REPLACE", "Content-Type": headerValue(o.kind)}
	if fields["Content-Type"] == "" {
		fields["Content-Type"] = "application/octet-stream"
	}
	return c.do(ctx, "copy to", o.to, func() error {
		_, err := c.patient.CopyObject(ctx, c.o.Bucket, o.from, c.o.Bucket, o.to, fields, minio.CopySrcOptions{}, minio.PutObjectOptions{})
		return err
	})
}

// copyInParts copies an object that is too large for one call. note is told of the upload's beginning and end.
func (c *client) copyInParts(ctx context.Context, o copying) error {
	id, err := c.start(ctx, o.to, o.kind)
	if err != nil {
		return err
	}
	o.note(id, true)
	defer o.note(id, false)
	var parts []minio.CompletePart
	for at := int64(0); at < o.size; at += o.limit {
		err := c.do(ctx, "copy to", o.to, func() error {
			p, err := c.patient.CopyObjectPart(ctx, c.o.Bucket, o.from, c.o.Bucket, o.to, id, len(parts)+1, at, min(o.limit, o.size-at), nil)
			if err == nil {
				parts = append(parts, p)
			}
			return err
		})
		if err != nil {
			_ = c.abort(context.WithoutCancel(ctx), o.to, id) // else Sweep will
			return err
		}
	}
	if err := c.complete(ctx, o.to, id, parts, o.size, condition{}); err != nil {
		_ = c.abort(context.WithoutCancel(ctx), o.to, id)
		return fmt.Errorf("copy %s: %w", o.from, err)
	}
	return nil
}
