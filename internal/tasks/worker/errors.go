package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
)

// The handler tells asynq what to do with a task by the type of its error, and by nothing else:
//
//	nil            the batch is finished: the task goes
//	*archiveError  its last attempt failed: to the archive, with the error
//	*retryError    an attempt or a wait: back after a delay, the error shown under Retry
//	*deferError    nothing was tried (host busy, worker stopping, store away): back after a delay
type (
	archiveError struct{ text string }
	retryError   struct {
		text    string
		after   time.Duration
		counted bool
	}
	deferError struct {
		text  string
		after time.Duration
	}
)

// Error is what the task is archived with.
func (e *archiveError) Error() string { return e.text }

// Is makes asynq archive the task while showing our text: a bare asynq.SkipRetry would be shown as such.
func (e *archiveError) Is(target error) bool { return target == asynq.SkipRetry }

// Error is what the task shows under Retry: what went wrong.
func (e *retryError) Error() string { return e.text }

// Error is what the task shows under Retry: why nothing was tried.
func (e *deferError) Error() string { return e.text }

func deferBatch(after time.Duration, format string, args ...any) error {
	return &deferError{text: fmt.Sprintf(format, args...), after: after}
}

// decided reports whether err is one of ours, or none: what becomes of the batch was decided, and the ledger told.
func decided(err error) bool {
	var retry *retryError
	var later *deferError
	var archive *archiveError
	return err == nil || errors.As(err, &retry) || errors.As(err, &later) || errors.As(err, &archive)
}

// isFailure is asynq's IsFailure: only an attempt counts towards its retry count. A lost lease is no failure.
func isFailure(err error) bool {
	var retry *retryError
	if errors.As(err, &retry) {
		return retry.counted
	}
	var archive *archiveError
	return errors.As(err, &archive)
}

// unexpectedDelay is how long a task waits after an error that is none of ours (a lost lease, a bug).
const unexpectedDelay = 5 * time.Second

// retryDelay is asynq's RetryDelayFunc.
func retryDelay(_ int, err error, _ *asynq.Task) time.Duration {
	var retry *retryError
	var later *deferError
	switch {
	case errors.As(err, &retry):
		return retry.after
	case errors.As(err, &later):
		return later.after
	case errors.Is(err, asynq.ErrLeaseExpired):
		return 0
	}
	return unexpectedDelay
}
