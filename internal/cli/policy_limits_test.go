package cli

import (
	"slices"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// Each package says it for itself, so that none has to know the other.
func TestOneWordForLimitsThatSeveralPackagesKnow(t *testing.T) {
	if tasks.MaxURLLength != canon.MaxLength {
		t.Errorf("URLs: %d and %d bytes", tasks.MaxURLLength, canon.MaxLength)
	}
	if tasks.DefaultMaxRatio != fetch.DefaultMaxRatio || tasks.NoMaxRatio != fetch.NoMaxRatio {
		t.Errorf("ratios: %d and %d, %d and %d", tasks.DefaultMaxRatio, fetch.DefaultMaxRatio, tasks.NoMaxRatio, fetch.NoMaxRatio)
	}
}

func TestLimitsThatAreGivenAreCompared(t *testing.T) {
	none, ten, size := int64(0), 10, ByteSize(100)
	p := PolicyFlags{LimitFlags: LimitFlags{MaxRatio: &none, MaxRedirects: &ten, MaxURL: &size, MethodTimeout: []string{"POST=1m"}},
		WantFlags: WantFlags{Accept: []string{"text/html", "image/*"}}}
	spec, given, err := p.Spec()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--max-ratio", "--max-redirects", "--max-url", "--method-timeout", "--accept"}
	if !slices.Equal(given, want) {
		t.Errorf("given: %q, want %q", given, want)
	}
	if spec.Ratio() != 0 || spec.Redirects() != 10 || spec.URLLimit() != 100 || spec.Accept != "text/html,image/*" || spec.Version() != 2 {
		t.Errorf("spec %+v", spec)
	}
	if diff := spec.Difference(tasks.DefaultSpec(), given); len(diff) != len(want) {
		t.Errorf("differs in %q", diff)
	}
}

func TestSpeedsAreReadAsPeopleWriteThem(t *testing.T) {
	for in, want := range map[string]Speed{"0": 0, "500": 500, "10KiB/s": 10 << 10, " 1MB/s ": 1e6, "2kB": 2000, "x": -1, "/s": -1, "-1": -1, "1/s/s": -1, "NaN": -1, "": -1} {
		var got Speed
		if err := got.UnmarshalText([]byte(in)); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
}

// FuzzSpeed: a speed is never below 0 and fits what it is multiplied with.
func FuzzSpeed(f *testing.F) {
	for _, s := range []string{"10KiB/s", "0", "1e18", "9TB/s", "-5", "NaN", "Inf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s Speed
		if err := s.UnmarshalText([]byte(text)); err == nil && s < 0 {
			t.Errorf("%q is %d", text, s)
		}
	})
}
