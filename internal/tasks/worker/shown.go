package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hibiken/asynq"
)

// task returns what asynq has of a task, or nil when it has it no more. While Redis is away it asks again, for as long
// as the task is leased to this worker.
func (h *handler) task(ctx context.Context, queue, id string) (info *asynq.TaskInfo, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.quit, cancel)()
	err = h.insist(ctx, func(context.Context) (err error) {
		info, err = h.inspector.GetTaskInfo(queue, id)
		if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look up task %s: %w", id, err)
	}
	return info, nil
}

// putOff defers a task before anything was decided about it, and keeps the error it stands with behind the new one:
// for a task that was Run that error is all that tells it from one that is yet to be archived. If asynq cannot be
// asked, the error goes back as it is; with the lease over asynq does not write it down either.
func (h *handler) putOff(ctx context.Context, queue, id string, why error) error {
	info, err := h.task(ctx, queue, id)
	if err != nil {
		return errors.Join(why, err)
	}
	text := why.Error()
	if info != nil {
		text = withEarlier(text, info.LastErr)
	}
	return &deferError{text: text, after: retryDelay(0, why, nil)}
}

// beforeThat stands between the error of a task and an earlier one.
const beforeThat = " (before that: "

// withEarlier puts an error before an earlier one, which may itself have been put behind others: those are dropped.
func withEarlier(text, earlier string) string {
	if _, first, ok := strings.Cut(earlier, beforeThat); ok {
		earlier = strings.TrimSuffix(first, ")")
	}
	if earlier == "" {
		return text
	}
	return text + beforeThat + earlier + ")"
}

// standsWith reports whether a task shows an error, be it behind others.
func standsWith(shown, text string) bool {
	return shown == text || strings.HasSuffix(shown, beforeThat+text+")")
}
