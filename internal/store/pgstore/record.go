package pgstore

import (
	"encoding/json"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

// recordFields are the columns of records in the order in which appendRecord writes them.
const (
	recordFields = 34
	copyRecords  = `COPY records (unit_key, n, id, job, batch, generation, url, final_url, method, outcome, status,
	error_class, error_message, attempts, headers, content_type, charset, bytes, sha256, body, unchanged, body_job, resumed,
	fetched_at, fetched_ns, elapsed_ms, timings, protocol, remote_addr, redirects, worker, insecure, meta, exact)
	FROM STDIN WITH (FORMAT binary)`
)

// appendRecord appends a record as a row of copyRecords. line is the record as JSON, of which it knows that it can be
// written; it is added where the columns cannot hold all of it.
func appendRecord(b []byte, k key, n int, r *store.Record, line []byte) ([]byte, error) {
	w := newRow(b, recordFields)
	w.key(k)
	w.int4(n)
	w.text(r.ID)
	w.text(r.Job)
	w.text(r.Batch)
	w.int4(r.Generation)
	w.text(r.URL)
	w.optText(r.FinalURL)
	w.text(r.Method)
	w.text(string(r.Outcome))
	_ = optional(&w, r.Status != 0, func() error { w.int4(r.Status); return nil })
	if r.Error != nil {
		w.text(r.Error.Class)
		w.text(r.Error.Message)
	} else {
		w.null()
		w.null()
	}
	w.int4(r.Attempts)
	err := optional(&w, len(r.Headers) > 0, func() error { return w.jsonb(r.Headers) })
	w.optText(r.ContentType)
	w.optText(r.Charset)
	w.int8(r.Bytes)
	w.optText(r.SHA256)
	w.optText(r.Body)
	w.bool(r.Unchanged)
	w.optText(r.BodyJob)
	w.int4(r.Resumed)
	w.time(r.FetchedAt)
	w.float8(r.ElapsedMS)
	if err == nil {
		err = optional(&w, r.Timings != nil, func() error { return w.jsonb(r.Timings) })
	}
	w.optText(r.Protocol)
	w.optText(r.RemoteAddr)
	if err == nil {
		err = optional(&w, len(r.Redirects) > 0, func() error { return w.jsonb(r.Redirects) })
	}
	w.text(r.Worker)
	w.bool(r.Insecure)
	_ = optional(&w, len(r.Meta) > 0, func() error { w.json(r.Meta); return nil })
	_ = optional(&w, w.inexact, func() error { w.bytes(line); return nil })
	return w.b, err
}

func optional(w *row, there bool, write func() error) error {
	if !there {
		w.null()
		return nil
	}
	return write()
}

// selectRecords reads a page of a unit's records.
const selectRecords = `SELECT n, id, job, batch, generation, url, coalesce(final_url, ''), method, outcome, coalesce(status, 0),
	error_class, coalesce(error_message, ''), attempts, headers, coalesce(content_type, ''), coalesce(charset, ''), bytes, coalesce(sha256, ''),
	coalesce(body, ''), unchanged, coalesce(body_job, ''), resumed, fetched_at, fetched_ns, elapsed_ms, timings,
	coalesce(protocol, ''), coalesce(remote_addr, ''), redirects, worker, insecure, meta, exact
	FROM records WHERE unit_key = $1 AND n >= $2 ORDER BY n LIMIT $3`

// scanRecord reads a row of selectRecords, and about how large it was.
func scanRecord(rows pgx.Rows) (n int, r *store.Record, size int, err error) {
	r = new(store.Record)
	var class *string
	var message string
	var ns int
	var headers, timings, redirects, meta, exact []byte
	err = rows.Scan(&n, &r.ID, &r.Job, &r.Batch, &r.Generation, &r.URL, &r.FinalURL, &r.Method, &r.Outcome, &r.Status,
		&class, &message, &r.Attempts, &headers, &r.ContentType, &r.Charset, &r.Bytes, &r.SHA256,
		&r.Body, &r.Unchanged, &r.BodyJob, &r.Resumed, &r.FetchedAt, &ns, &r.ElapsedMS, &timings,
		&r.Protocol, &r.RemoteAddr, &redirects, &r.Worker, &r.Insecure, &meta, &exact)
	if err != nil {
		return n, nil, 0, err
	}
	for _, v := range rows.RawValues() {
		size += len(v)
	}
	if exact != nil {
		r = new(store.Record)
		return n, r, size, json.Unmarshal(exact, r)
	}
	r.FetchedAt = r.FetchedAt.UTC().Add(time.Duration(ns))
	if class != nil {
		r.Error = &store.RecordError{Class: *class, Message: message}
	}
	if meta != nil {
		r.Meta = meta
	}
	for _, part := range []struct {
		text []byte
		into any
	}{{headers, &r.Headers}, {timings, &r.Timings}, {redirects, &r.Redirects}} {
		if part.text == nil {
			continue
		}
		if err := json.Unmarshal(part.text, part.into); err != nil {
			return n, nil, size, err
		}
	}
	return n, r, size, nil
}
