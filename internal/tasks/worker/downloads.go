package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// downloadInterval is how often a worker notes how far its large bodies are.
const downloadInterval = 2 * time.Second

// downloads are the large bodies that this worker moves.
type downloads struct {
	mu    sync.Mutex
	known map[*download]struct{}
}

// download is one large body on its way.
type download struct {
	job    tasks.JobID
	batch  tasks.BatchID
	id     tasks.RequestID
	url    string
	length int64
	have   atomic.Int64
}

func (ds *downloads) add(d *download) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.known == nil {
		ds.known = map[*download]struct{}{}
	}
	ds.known[d] = struct{}{}
}

func (ds *downloads) remove(d *download) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	delete(ds.known, d)
}

// byJob is what the ledger is to note of them.
func (ds *downloads) byJob(worker string) map[tasks.JobID]map[tasks.RequestID]ledger.Large {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	jobs := map[tasks.JobID]map[tasks.RequestID]ledger.Large{}
	for d := range ds.known {
		if jobs[d.job] == nil {
			jobs[d.job] = map[tasks.RequestID]ledger.Large{}
		}
		jobs[d.job][d.id] = d.large(worker)
	}
	return jobs
}

func (d *download) large(worker string) ledger.Large {
	return ledger.Large{URL: d.url, Have: d.have.Load(), Length: d.length, At: time.Now().UnixMilli(), Worker: worker,
		Batch: d.batch}
}

// tellDownloads notes how far large bodies are, for people to see.
func (w *Worker) tellDownloads(ctx context.Context) {
	every(ctx, downloadInterval, func(ctx context.Context) {
		for job, bodies := range w.handler.downloads.byJob(w.opts.Name) {
			if err := w.handler.ledger.NoteLarge(ctx, job, bodies); err != nil {
				return // Redis is away; watchRedis says so
			}
		}
	})
}
