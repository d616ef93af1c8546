package tasks

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The digests below were computed with another language's SHA-256 from the layout that NewRequestID documents. Jobs in
// Redis and stores outlive the code, so they never change.
func TestRequestIDsArePinned(t *testing.T) {
	for _, c := range []struct {
		job              JobID
		method, url, key string
		body             string
		want             RequestID
	}{
		{"list", "GET", "http://example.org/", "", "", "351ca8f9526564e5e63a269a8e42c73a"},
		{"list", "POST", "http://example.org/", "", "a=1", "c6fec445172aef5d71aba8c779818e70"},
		{"list", "GET", "http://example.org/", "k", "", "16f29f843258145386faeffa1a67794f"},
		{"other", "GET", "http://example.org/", "", "", "cf07d6f72466b8ce253dcedc9ac3dfe7"},
		{"list", "GET", "http://example.org/", "k\x00", "x", "ced696638e298d24c0931b8e37f885b5"},
	} {
		if got := NewRequestID(c.job, c.method, c.url, c.key, []byte(c.body)); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestBatchIDsArePinned(t *testing.T) {
	if got := ListedBatchID("list", []int64{1, -2}); got != "1cklas4asma3tuk2" {
		t.Errorf("listed: %s", got)
	}
	if got := ChildBatchID("list", "retry", "unit.1", "first"); got != "3kubrfdkqqsduq08" {
		t.Errorf("child: %s", got)
	}
	if got := RetakenBatchID("list", "0123", 2); got != "liltnloa0qlhr8rk" {
		t.Errorf("retaken: %s", got)
	}
}

func TestBatchIDTellsBatchesApart(t *testing.T) {
	ids := []BatchID{
		ListedBatchID("j", []int64{1, 2}), ListedBatchID("j", []int64{2, 1}), ListedBatchID("j", []int64{1}),
		ListedBatchID("k", []int64{1, 2}),
		ChildBatchID("j", "retry", "u", "r"), ChildBatchID("j", "hop", "u", "r"), ChildBatchID("j", "retry", "u.1", "r"),
		ChildBatchID("j", "retry", "u", "s"), RetakenBatchID("j", "r", 1), RetakenBatchID("j", "r", 2),
	}
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != 10 {
		t.Errorf("%d different ids, want 10", n)
	}
}

func TestSeenHashIsTheSameWithAndWithoutTheID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job, url, key := JobID(rapid.String().Draw(t, "job")), rapid.String().Draw(t, "url"), rapid.String().Draw(t, "key")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		got, err := NewRequestID(job, "GET", url, key, body).SeenHash()
		if want := RequestHash(job, "GET", url, key, body); err != nil || got != want {
			t.Fatalf("hash of the id = %d (%v), without it %d", got, err, want)
		}
	})
}

func TestSeenHashRefusesWhatIsNoID(t *testing.T) {
	for _, id := range []RequestID{"", "0123456789abcde", "0123456789abcdeg0123456789abcdef"} {
		if h, err := id.SeenHash(); err == nil {
			t.Errorf("%q has the hash %d", id, h)
		}
	}
}

func TestJobIDs(t *testing.T) {
	for name, c := range map[string]struct {
		id JobID
		ok bool
	}{
		"one letter":          {"a", true},
		"a digit first":       {"7up", true},
		"dots and dashes":     {"a.b-c_D", true},
		"64 characters":       {JobID(strings.Repeat("x", 64)), true},
		"65 characters":       {JobID(strings.Repeat("x", 65)), false},
		"empty":               {"", false},
		"a dot first":         {".a", false},
		"a dash first":        {"-a", false},
		"an underscore first": {"_a", false},
		"a slash":             {"a/b", false},
		"a parent folder":     {"..", false},
		"a brace":             {"a}b", false},
		"a space":             {"a b", false},
		"a new line":          {"a\n", false},
		"an umlaut":           {"ä", false},
		"a NUL":               {"a\x00", false},
		"a glob":              {"a*", false},
		"a colon":             {"a:b", false},
	} {
		if err := c.id.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGeneratedJobIDsAreValidAndSortByTime(t *testing.T) {
	at := time.Date(2026, 11, 20, 23, 59, 59, 0, time.FixedZone("east", 7200))
	first, second := NewJobID(at), NewJobID(at.Add(time.Second))
	if first >= second || !strings.HasPrefix(string(first), "20261120-215959-") {
		t.Errorf("%s, then %s", first, second)
	}
	for _, id := range []JobID{first, second} {
		if err := id.Validate(); err != nil {
			t.Error(err)
		}
	}
	if again := NewJobID(at); again == first {
		t.Errorf("two jobs of one second are both %s", first)
	}
}
