package tasks

import (
	"strings"
	"testing"
)

func TestVersionsOfHTTPAreThoseThatAreKnown(t *testing.T) {
	for version, ok := range map[string]bool{"": true, "1.1": true, "2": true, "3": true, "auto": false, "1.0": false, "4": false} {
		s := DefaultSpec()
		s.HTTP = version
		err := s.Validate()
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "--http") {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// A worker that does not know the fields would speak something else than was asked for.
func TestASpecWithAProtocolNeedsANewerWorker(t *testing.T) {
	for want, p := range map[int]ProtocolSpec{1: {}, 2: {HTTP: "1.1"}} {
		s := DefaultSpec()
		s.ProtocolSpec = p
		if got := s.Version(); got != want {
			t.Errorf("%+v has version %d, want %d", p, got, want)
		}
	}
	s := DefaultSpec()
	if s.Insecure = true; s.Version() != 2 {
		t.Errorf("an insecure spec has version %d", s.Version())
	}
}
