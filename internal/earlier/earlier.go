// Package earlier reads from a store what an earlier job has of its requests, so that origins are asked only for what
// has changed since then (RFC 9110, section 13.1).
//
// It promises to look at nothing but the records that count, to tell of a request only what is safe to ask by, and that
// memory grows with the job by 16 bytes a request where requests are looked up, and not at all where they are brought
// one after another. It does not look whether the bodies are there: that is for verify.
package earlier

import (
	"context"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
)

// maxValidator is the longest validator that is sent back, in bytes: it is part of every payload. Usual ones have 40.
const maxValidator = 1 << 10

// Of returns what a record that counts says of its request, nil if that is nothing to ask the origin by: another method
// than GET and HEAD, another answer than a whole 200, or no validator.
//
// The record of an unchanged answer hands on what it refers to: the body of the job that really holds it, under the
// validators that were confirmed.
func Of(r *store.Record) *tasks.Since {
	answered := r.Status == http.StatusOK || r.Status == http.StatusNotModified && r.Unchanged
	if r.Outcome != store.OK || !answered || !conditional(r.Method) {
		return nil
	}
	s := &tasks.Since{
		ETag: validator(r.Headers, "ETag"), LastModified: validator(r.Headers, "Last-Modified"),
		Body: r.Body, Bytes: r.Bytes, SHA256: r.SHA256, ContentType: r.ContentType,
	}
	if s.ETag == "*" { // which would ask for any change at all
		s.ETag = ""
	}
	if s.ETag == "" && s.LastModified == "" {
		return nil
	}
	if r.BodyOf() != r.Job {
		s.BodyJob = tasks.JobID(r.BodyOf())
	}
	if len(r.Redirects) > 0 && r.FinalURL != r.URL {
		s.URL = r.FinalURL
	}
	if !r.Unchanged { // else the body was fetched at a time that the record does not tell
		s.FetchedAt = r.FetchedAt.UTC()
	}
	return s
}

func conditional(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// validator returns a field's value if it can be sent back as it was.
func validator(h map[string][]string, name string) string {
	v := textproto.MIMEHeader(h).Get(name)
	if len(v) > maxValidator || !httpguts.ValidHeaderFieldValue(v) || strings.ContainsRune(v, utf8.RuneError) {
		return "" // the last: it was not UTF-8, and the record does not have it any more
	}
	return v
}

// Tally is what was found of a job.
type Tally struct {
	Records     int64 // that count
	Conditional int64 // of them, those with something to ask the origin by
	Left        int64 // of them, those whose request a record alone does not tell: neither GET nor HEAD
}

// Requests calls do with every request of a job that can be made again from its record alone: GET and HEAD. It has the
// URL, the method and the meta of the line; headers, key, retries and timeout of a line are not in records.
// It streams: memory grows only with the requests that were taken more than once.
func Requests(ctx context.Context, s store.Store, job tasks.JobID, do func(enqueuer.Again) error) (t Tally, err error) {
	err = audit.Each(ctx, s, job, func(r *store.Record) error {
		t.Records++
		if !conditional(r.Method) {
			t.Left++
			return nil
		}
		a := enqueuer.Again{Method: r.Method, URL: r.URL, Meta: r.Meta, Since: Of(r)}
		if a.Since != nil {
			t.Conditional++
		}
		return do(a)
	})
	return t, err
}

// Check reports an error if the store has nothing of the job.
func Check(ctx context.Context, s store.Store, job tasks.JobID) error {
	for _, err := range s.Units(ctx, string(job)) {
		return err
	}
	return fmt.Errorf("%s has no results of job %s", s, job)
}
