package store

import "context"

// Compactor is a Store that packs units into fewer, larger things once nobody writes any more.
type Compactor interface {
	Store
	// Compact packs the units of a job. Names, records and bodies stay as they were, also for those who read meanwhile.
	// It may be called at any time, again, and while units are still committed: those are left for the next call. An error
	// that wraps ErrBusy says that another is at it.
	Compact(ctx context.Context, job string) error
}
