package enqueuer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

func sizes(batches []batch) []int {
	var n []int
	for _, b := range batches {
		n = append(n, len(b.pending))
	}
	return n
}

func TestBatchesOfAHostGrowSoThatFewURLsSpreadOverTheFleet(t *testing.T) {
	gs := newGroups(32, 32<<20)
	var got []int
	for i := range 160 {
		got = append(got, sizes(gs.add("h", pending{url: fmt.Sprintf("http://h/%d", i)}))...)
	}
	if diff := cmp.Diff([]int{1, 1, 2, 4, 8, 16, 32, 32, 32, 32}, got); diff != "" {
		t.Error(diff)
	}
}

func TestABatchOfOneIsAllThatIsAskedFor(t *testing.T) {
	gs := newGroups(1, 32<<20)
	for i := range 5 {
		if got := sizes(gs.add("h", pending{url: fmt.Sprint(i)})); !slices.Equal(got, []int{1}) {
			t.Fatalf("request %d: %v", i, got)
		}
	}
}

// The payload that is really written stays under 8 KiB, unless one request alone is larger.
func TestBatchesCloseBefore8KiB(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gs := newGroups(32, 32<<20)
		s := &sender{job: tasks.JobID(strings.Repeat("j", 64))}
		for i := range 200 {
			p := pending{url: "http://h/" + strings.Repeat("x", rapid.IntRange(0, 900).Draw(t, "length"))}
			if rapid.Bool().Draw(t, "more") {
				p.request = &tasks.Request{URL: p.url, Method: "OPTIONS", Key: strings.Repeat("k", rapid.IntRange(0, 50).Draw(t, "key")),
					Body:   []byte(strings.Repeat("b", rapid.IntRange(0, 4096).Draw(t, "body"))),
					Header: tasks.Header{"X-Long": {strings.Repeat("v", rapid.IntRange(0, 2000).Draw(t, "value"))}}}
			}
			if rapid.Bool().Draw(t, "since") {
				if p.request == nil {
					p.request = &tasks.Request{URL: p.url}
				}
				p.request.Since = &tasks.Since{URL: p.url, ETag: strings.Repeat(`"`, rapid.IntRange(0, 1000).Draw(t, "etag")),
					LastModified: "Fri, 20 Nov 2026 09:30:12 GMT", FetchedAt: time.Now(), BodyJob: "an-earlier-job", Body: "bodies/2c/2cf24d.html",
					Bytes: 1 << 40, SHA256: strings.Repeat("a", 64), ContentType: "text/html; charset=\"utf-8\""}
			}
			for _, b := range gs.add("h", p) {
				o, err := s.write(b)
				if err != nil {
					t.Fatal(err)
				}
				if len(o.Payload) > tasks.MaxPayload && len(b.pending) > 1 {
					t.Fatalf("request %d closed a batch of %d requests and %d bytes", i, len(b.pending), len(o.Payload))
				}
			}
		}
	})
}

func TestTheMemoryCapFlushesTheOldestFirst(t *testing.T) {
	gs := newGroups(32, 4000)
	warm := func(host string) { // its next batch closes at 8 requests, so one stays at hand
		for i := range 8 {
			gs.add(host, pending{url: fmt.Sprintf("http://%s/%d", host, i)})
		}
	}
	hosts := []string{"a", "b", "c", "d"}
	for _, h := range hosts {
		warm(h)
	}
	for _, h := range hosts {
		if out := gs.add(h, pending{url: "http://" + h + "/" + strings.Repeat("x", 800)}); len(out) != 0 {
			t.Fatalf("%s flushed %d batches below the cap", h, len(out))
		}
	}
	warm("e")
	var order []string
	for _, b := range gs.add("e", pending{url: strings.Repeat("x", 2000)}) {
		order = append(order, b.host)
	}
	if !slices.Equal(order, []string{"a", "b"}) {
		t.Errorf("flushed %v, want the two oldest", order)
	}
	if gs.bytes > gs.limit {
		t.Errorf("%d bytes at hand, limit %d", gs.bytes, gs.limit)
	}
}

func TestGroupsLoseNothingAndForgetNoBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gs := newGroups(rapid.IntRange(1, 32).Draw(t, "max"), rapid.IntRange(100, 5000).Draw(t, "limit"))
		in, out := 0, 0
		for range 300 {
			host := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "host"))
			in++
			for _, b := range gs.add(host, pending{url: strings.Repeat("x", rapid.IntRange(1, 600).Draw(t, "length"))}) {
				out += len(b.pending)
			}
		}
		for g := gs.oldest(); g != nil; g = gs.oldest() {
			out += len(gs.take(g).pending)
		}
		if in != out || gs.bytes != 0 {
			t.Fatalf("%d in, %d out, %d bytes left", in, out, gs.bytes)
		}
	})
}

// With more hosts than can be known the oldest give way, and that costs little per line.
func TestManyHostsAreForgottenRatherThanKept(t *testing.T) {
	gs := newGroups(32, 1<<30)
	in, out, most := 0, 0, 0
	for round := range 5 {
		for host := range 3 * maxHosts / 2 {
			in++
			for _, b := range gs.add(fmt.Sprint(host), pending{url: fmt.Sprint(round)}) {
				out += len(b.pending)
			}
			most = max(most, len(gs.hosts))
		}
	}
	for g := gs.oldest(); g != nil; g = gs.oldest() {
		out += len(gs.take(g).pending)
	}
	if in != out || most > maxHosts {
		t.Errorf("%d in, %d out, %d hosts known at most, want up to %d", in, out, most, maxHosts)
	}
}
