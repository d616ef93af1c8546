// Package storetest is the conformance suite of stores: what package store promises, as tests that every driver passes.
// It sees a driver only through store.Store. What a driver leaves behind when it is killed, or says when its disk is
// full, is for the driver's own tests.
package storetest

import (
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Opener opens a fresh, empty store. reopen opens the same store once more, as another worker would. Stores are closed
// by the opener's own t.Cleanup.
type Opener func(t *testing.T) (a store.Store, reopen func() store.Store)

// Run tests a driver. Each test opens a store of its own.
func Run(t *testing.T, open func(t *testing.T) (a store.Store, reopen func() store.Store)) {
	tests := []struct {
		claim string
		test  func(*testing.T, Opener)
	}{
		{"nothing is visible before commit", nothingBeforeCommit},
		{"a committed unit is visible everywhere", visibleEverywhere},
		{"a unit without records exists", emptyUnit},
		{"the first committed unit of a name wins", firstWins},
		{"of many racing units one wins and the others learn which", race},
		{"what was never committed is not found", notFound},
		{"the units listed are those committed", unitsListed},
		{"many records come back equal and in order", manyRecords},
		{"a record refused leaves its unit usable", recordRefused},
		{"bodies come back byte for byte", bodies},
		{"the same body can be stored twice", sameBody},
		{"bodies of one unit can be written at once", concurrentBodies},
		{"an aborted body leaves nothing", abortedBody},
		{"a discarded unit leaves nothing", discard},
		{"a unit ends once", endsOnce},
		{"an account must be of its unit", foreignAccount},
		{"generations of a batch are units of their own", generations},
		{"jobs do not see each other", jobsApart},
		{"the identity lasts and is the same for all", identity},
		{"names that could escape are refused", badNames},
		{"a cancelled context ends calls", cancelled},
		{"iteration can be left early", leaveEarly},
		{"a sound store passes its check", check},
		{"a closed store begins nothing", closed},
	}
	for _, tt := range tests {
		t.Run(tt.claim, func(t *testing.T) { tt.test(t, open) })
	}
}
