// Package audit holds the ledger of a job against its store.
//
// It promises to name what is wrong: a request without its record, one with two, a batch that nobody will bring back.
// It also works the other way: it rebuilds the ledger from the store, finds the failures to take again, and streams
// the records that count.
package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// Report is what an audit found.
type Report struct {
	Job      tasks.JobID `json:"job"`
	State    string      `json:"state"`
	Accepted int64       `json:"accepted"`
	Recorded int64       `json:"recorded"` // requests with a record
	Open     int64       `json:"open"`     // requests in batches whose unit is not visible
	Units    int64       `json:"units"`
	Records  int64       `json:"records"` // of all generations
	Stranded []string    `json:"stranded,omitempty"`
	Problems []string    `json:"problems,omitempty"`
}

// OK reports whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// maxProblems is how many problems of a kind are named; the rest are counted.
const maxProblems = 20

// Auditor holds what an audit needs.
type Auditor struct {
	Redis  redis.UniversalClient
	Ledger *ledger.Ledger
	Store  store.Store
}

// Audit looks until two looks at a moving job agree, at most tries times, and reports the last.
// Memory grows with the job: about 60 bytes a request.
func (a *Auditor) Audit(ctx context.Context, job tasks.JobID, tries int) (*Report, error) {
	for try := 1; ; try++ {
		before, err := a.Ledger.Status(ctx, job)
		if err != nil {
			return nil, err
		}
		open, err := a.Ledger.OpenBatches(ctx, job)
		if err != nil {
			return nil, err
		}
		generations, err := a.Ledger.Generations(ctx, job)
		if err != nil {
			return nil, err
		}
		report, err := a.look(ctx, job, before, open, generations)
		if err != nil {
			return nil, err
		}
		after, err := a.Ledger.Status(ctx, job)
		if err != nil {
			return nil, err
		}
		moved := after.Accepted != before.Accepted || after.Open != before.Open || after.Recorded() != before.Recorded() ||
			after.Batches != before.Batches || after.Outbox != before.Outbox
		if !moved && report.OK() {
			return report, nil
		}
		if try >= tries {
			if moved {
				report.Problems = append(report.Problems, fmt.Sprintf("the figures still moved after %d looks: pause or end the job and audit again", tries))
			}
			return report, nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// look compares one status with what the store shows.
func (a *Auditor) look(ctx context.Context, job tasks.JobID, status ledger.Status, open map[tasks.BatchID]int, generations map[string]int) (*Report, error) {
	l := &look{Auditor: a, job: job, open: open, generations: generations, committed: map[string]bool{},
		seen: map[requestKey]int32{}, outcomes: map[requestKey]store.Outcome{},
		report: &Report{Job: job, State: status.State, Accepted: status.Accepted}}
	if err := l.identity(ctx, status); err != nil {
		return nil, err
	}
	if err := l.units(ctx); err != nil {
		return nil, err
	}
	l.replays()
	l.report.Recorded = int64(len(l.outcomes))
	for id, n := range open {
		if !l.committed[string(id)] {
			l.report.Open += int64(n)
		}
	}
	l.report.Open += l.pendingChildren
	if sum := l.report.Recorded + l.report.Open; sum != status.Accepted {
		l.problem("accepted %d requests, but %d are recorded and %d open: %d unaccounted for",
			status.Accepted, l.report.Recorded, l.report.Open, status.Accepted-sum)
	}
	if len(l.committed) == 0 { // else the ledger is about to count them
		l.counters(status)
	}
	if err := l.unseen(ctx); err != nil {
		return nil, err
	}
	if err := l.stranded(ctx); err != nil {
		return nil, err
	}
	if l.skipped > 0 {
		l.report.Problems = append(l.report.Problems, fmt.Sprintf("and %d more", l.skipped))
	}
	return l.report, nil
}

// requestKey is a request id in 16 bytes.
type requestKey [16]byte

// look is one look at a job.
type look struct {
	*Auditor
	job         tasks.JobID
	open        map[tasks.BatchID]int
	generations map[string]int // of requests taken more than once
	report      *Report

	seen            map[requestKey]int32         // highest generation recorded
	outcomes        map[requestKey]store.Outcome // of that one
	committed       map[string]bool              // open batches whose unit is visible: about to be finished
	pendingChildren int64                        // requests of children of those
	skipped         int
}

func (l *look) problem(format string, args ...any) {
	if len(l.report.Problems) < maxProblems {
		l.report.Problems = append(l.report.Problems, fmt.Sprintf(format, args...))
		return
	}
	l.skipped++
}

func (l *look) identity(ctx context.Context, status ledger.Status) error {
	identity, err := l.Store.Identity(ctx)
	if err != nil {
		return err
	}
	if status.Store != "" && status.Store != identity {
		return &ledger.OtherStoreError{Job: l.job, Noted: status.Store, Identity: identity, Name: l.Store.String()}
	}
	return nil
}

// units reads every unit: its account, and that its records are what the account says.
func (l *look) units(ctx context.Context) error {
	for unit, err := range l.Store.Units(ctx, string(l.job)) {
		if err != nil {
			return err
		}
		account, records, err := store.ReadUnit(ctx, l.Store, string(l.job), unit)
		if err != nil {
			l.problem("unit %s: %v", unit, err)
			continue
		}
		l.report.Units++
		if _, ok := l.open[tasks.BatchID(account.Batch)]; ok && l.current(account) {
			l.committed[account.Batch] = true
			for _, c := range account.Children {
				if _, finished := l.open[tasks.BatchID(c.ID)]; !finished {
					l.pendingChildren += int64(c.Requests)
				}
			}
		}
		if err := l.records(unit, account, records); err != nil {
			return err
		}
	}
	return nil
}

// current reports whether a unit is of the generation in which its batch is open. A batch that is open again for a
// replay has the units of earlier generations, which say nothing of it.
func (l *look) current(a *store.Account) bool {
	return len(a.Entries) != 1 || a.Generation == l.generations[a.Entries[0].ID]
}

// replays takes requests that are being taken again out of those recorded: the record that counts is to come.
func (l *look) replays() {
	for id, generation := range l.generations {
		if key, err := keyOf(id); err == nil && int(l.seen[key]) < generation {
			delete(l.outcomes, key)
		}
	}
}

// records counts a unit's records and compares them with its account.
func (l *look) records(unit string, account *store.Account, records iter.Seq2[*store.Record, error]) error {
	want := map[string]bool{}
	for _, e := range account.Entries {
		if e.Fate == store.Recorded {
			want[e.ID] = true
		}
	}
	for r, err := range records {
		if err != nil {
			l.problem("unit %s: %v", unit, err)
			return nil
		}
		l.report.Records++
		if !want[r.ID] {
			l.problem("unit %s: request %s is recorded, but not in the account", unit, r.ID)
		}
		delete(want, r.ID)
		key, err := keyOf(r.ID)
		if err != nil {
			l.problem("unit %s: %v", unit, err)
			continue
		}
		if before, ok := l.seen[key]; ok {
			if int(before) == r.Generation {
				l.problem("request %s has two records of generation %d; one is in unit %s", r.ID, r.Generation, unit)
			}
			if int(before) > r.Generation {
				continue
			}
		}
		l.seen[key] = int32(r.Generation)
		l.outcomes[key] = r.Outcome
	}
	for id := range want {
		l.problem("unit %s: the account names request %s as recorded, but its record is not there", unit, id)
	}
	return nil
}

func keyOf(id string) (key requestKey, err error) {
	if n, err := hex.Decode(key[:], []byte(id)); err != nil || n != len(key) {
		return key, fmt.Errorf("request id %q is not 32 hex digits", id)
	}
	return key, nil
}

// counters compares the ledger's counters with the records that count.
func (l *look) counters(status ledger.Status) {
	if status.Open != l.report.Open {
		l.problem("the ledger counts %d open requests, its open batches hold %d", status.Open, l.report.Open)
	}
	want := map[store.Outcome]int64{}
	for _, outcome := range l.outcomes {
		want[outcome]++
	}
	got := map[store.Outcome]int64{store.OK: status.OK, store.HTTPError: status.HTTPErr, store.Failed: status.Failed, store.Skipped: status.Skipped}
	for _, outcome := range store.Outcomes {
		if got[outcome] != want[outcome] {
			l.problem("the ledger counts %d requests %s, the store has %d", got[outcome], outcome, want[outcome])
		}
	}
}

// unseen finds records of requests that the ledger never accepted.
func (l *look) unseen(ctx context.Context) error {
	const chunk = 1000
	var hashes []int64
	var ids []requestKey
	flush := func() error {
		missing, err := l.Ledger.Unseen(ctx, l.job, hashes)
		if err != nil {
			return err
		}
		for _, i := range missing {
			l.problem("request %x has a record, but was never accepted", ids[i])
		}
		hashes, ids = hashes[:0], ids[:0]
		return nil
	}
	for key := range l.seen {
		h, err := tasks.RequestID(hex.EncodeToString(key[:])).SeenHash()
		if err != nil {
			return err
		}
		hashes, ids = append(hashes, h), append(ids, key)
		if len(hashes) == chunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(hashes) > 0 {
		return flush()
	}
	return nil
}

// stranded finds open batches that neither asynq nor the outbox will bring forward. A visible unit alone does not: its
// batch is finished by a delivery.
func (l *look) stranded(ctx context.Context) error {
	var ids []string
	for id := range l.open {
		ids = append(ids, string(id))
	}
	if len(ids) == 0 {
		return nil
	}
	spec, err := l.Ledger.Spec(ctx, l.job)
	if err != nil && !errors.Is(err, ledger.ErrUnknownJob) {
		return err
	}
	for len(ids) > 0 {
		chunk := ids[:min(len(ids), 1000)]
		ids = ids[len(chunk):]
		waiting, err := l.Ledger.InOutbox(ctx, l.job, chunk)
		if err != nil {
			return err
		}
		states, err := asynqkeys.States(ctx, l.Redis, spec.Queue, chunk)
		if err != nil {
			return err
		}
		for i, id := range chunk {
			if waiting[i] {
				continue
			}
			switch states[i] {
			case "":
				l.report.Stranded = append(l.report.Stranded, id)
				l.problem("batch %s is open, but asynq has no task for it and it is not in the outbox", id)
			case "archived", "completed":
				l.report.Stranded = append(l.report.Stranded, id)
				l.problem("batch %s is open, but its asynq task is %s: run it from the monitor", id, states[i])
			}
		}
	}
	return nil
}
