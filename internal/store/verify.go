package store

import "context"

// Verifier is a Store that can check its own structure: what no record shows, such as temporaries, orphans and indexes.
// What records say of bodies is checked by package verify, over any store.
type Verifier interface {
	Store
	// Verify calls found with everything that is not as it should be in a job. With repair it mends what can be mended
	// without losing anything that was committed: it removes torn temporaries and rebuilds indexes. Bodies that no record
	// refers to are not problems of a store that allows them; they are reported as notes. The error says that the store
	// could not be read.
	Verify(ctx context.Context, job string, repair bool, found func(Finding)) error
}

// Finding is one thing that Verify found.
type Finding struct {
	Kind   string `json:"kind"`           // from a small set: "torn", "temporary", "orphan", "index", "structure", "digest", "length", "missing"
	Where  string `json:"where"`          // file, object, table row
	What   string `json:"what"`           // what is wrong with it
	Note   bool   `json:"note,omitempty"` // worth knowing, but nothing is wrong
	Mended bool   `json:"mended,omitempty"`
}
