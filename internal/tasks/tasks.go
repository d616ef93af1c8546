// Package tasks is the vocabulary of the work: jobs and their specs, requests, batches, their ids and how they are
// written into Redis. It promises that a payload written by one version is read by every other of the same major
// version: fields are only added.
//
// It holds nouns only. What is done with them lives in the packages below it: ledger (what Redis knows of a job),
// enqueuer (lists in), worker (batches out), asynqkeys (the one place that touches asynq's own keys).
package tasks

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// JobID names one submission. It is 1 to 64 characters of a-z, A-Z, 0-9, dot, dash and underscore, and starts with a
// letter or digit.
type JobID string

// BatchID names one batch and is the id of its asynq task: 16 characters of base32, a digest of what the batch is.
type BatchID string

// RequestID names one request of a job: 32 hex digits, a digest of job, method, canonical URL, key and body.
type RequestID string

// TaskType is the asynq type of every batch.
const TaskType = "fetch:batch"

// Queues are the asynq queues a job may be put into, most urgent first.
var Queues = []string{"critical", "default", "low"}

var batchEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewJobID returns an id that sorts by its time: "20261120-093012-k3f9d2".
func NewJobID(now time.Time) JobID {
	var r [4]byte
	_, _ = rand.Read(r[:]) // never fails
	return JobID(now.UTC().Format("20060102-150405") + "-" + batchEncoding.EncodeToString(r[:])[:6])
}

// Validate reports why id cannot be a job's id. A job's id becomes part of Redis keys and of folder names.
func (id JobID) Validate() error {
	if id == "" {
		return errors.New("job id is empty")
	}
	if len(id) > 64 {
		return fmt.Errorf("job id %q is longer than 64 characters", string(id))
	}
	for i, c := range []byte(id) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || strings.IndexByte("._-", c) < 0) {
			return fmt.Errorf("job id %q: use letters, digits, dot, dash and underscore, and begin with a letter or digit", string(id))
		}
	}
	if id[len(id)-1] == '.' {
		return fmt.Errorf("job id %q ends with a dot: not every file system keeps such a name", string(id))
	}
	return nil
}

// NewRequestID digests what makes a request itself within its job. url is canonical and without fragment.
func NewRequestID(job JobID, method, url, key string, body []byte) RequestID {
	sum := requestDigest(job, method, url, key, body)
	return RequestID(hex.EncodeToString(sum[:16]))
}

func requestDigest(job JobID, method, url, key string, body []byte) [sha256.Size]byte {
	var stack [512]byte
	b := append(stack[:0], job...)
	b = append(b, 0)
	b = append(b, method...)
	b = append(b, 0)
	b = append(b, url...)
	b = append(b, 0)
	b = strconv.AppendInt(b, int64(len(key)), 10) // a key may hold any byte, so its length goes first
	b = append(b, 0)
	b = append(b, key...)
	b = append(b, body...)
	return sha256.Sum256(b)
}

// SeenHash is the part of a request id that the ledger's seen-set keeps: its first 64 bits. With ten million
// requests in a job the chance that any two share one is below 3e-6.
func (id RequestID) SeenHash() (int64, error) {
	if len(id) < 16 {
		return 0, fmt.Errorf("request id %q is too short", string(id))
	}
	u, err := strconv.ParseUint(string(id[:16]), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("request id %q is not hexadecimal", string(id))
	}
	return int64(u), nil
}

// newBatchID digests what a batch is, so that whoever builds the same batch again gives it the same id.
func newBatchID(job JobID, kind string, parts ...string) BatchID {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s", job, kind)
	for _, p := range parts {
		fmt.Fprintf(h, "\x00%s", p)
	}
	return BatchID(batchEncoding.EncodeToString(h.Sum(nil)[:10]))
}

// ListedBatchID is the id of a batch as the enqueuer first forms it, from the seen hashes of its requests.
func ListedBatchID(job JobID, hashes []int64) BatchID {
	var stack [512]byte
	b := append(stack[:0], job...)
	b = append(b, "\x00listed\x00"...)
	for _, h := range hashes {
		b = binary.BigEndian.AppendUint64(b, uint64(h))
	}
	sum := sha256.Sum256(b)
	return BatchID(batchEncoding.EncodeToString(sum[:10]))
}

// RequestHash is SeenHash of the id that NewRequestID would give, without writing the id.
func RequestHash(job JobID, method, url, key string, body []byte) int64 {
	sum := requestDigest(job, method, url, key, body)
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// ChildBatchID is the id of a batch that follows from a committed account: kind says why ("retry", "back", "hop",
// "split"), unit is the parent's unit, first the first request in it.
func ChildBatchID(job JobID, kind, unit string, first RequestID) BatchID {
	return newBatchID(job, kind, unit, string(first))
}

// RetakenBatchID is the id of the batch that takes a recorded request again in a higher generation.
func RetakenBatchID(job JobID, id RequestID, generation int) BatchID {
	return newBatchID(job, "retake", string(id), strconv.Itoa(generation))
}
