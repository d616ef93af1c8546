package progress

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// story returns the snapshots of a run that does 100 requests a second: the list is read for 5 s, then worked.
func story() func(context.Context) (Snapshot, error) {
	start := time.Now()
	return func(context.Context) (Snapshot, error) {
		seconds := int64(time.Since(start) / time.Second)
		s := Snapshot{State: "running", Accepted: min(seconds+1, 5) * 300, ListDone: min(seconds, 5) * 20, ListTotal: 100,
			Listing: seconds < 5, Bytes: seconds * 100 << 10, InFlight: 32, BadLines: 2}
		done := min(seconds*100, 1500)
		failed := done / 100
		s.Outcomes = map[string]int64{"ok": done - 2*failed, "failed": failed, "http_error": failed}
		s.Classes = map[string]int64{"http_404": failed, "timeout": failed - failed/3, "dns": failed / 3}
		s.Open = s.Accepted - done
		switch {
		case seconds == 8 || seconds == 9:
			return Snapshot{}, errors.New("redis is not reachable")
		case seconds > 9 && seconds < 13:
			s.HeldBack = "host limits (--host-rate, --host-conns)"
		case s.Open == 0:
			s.State, s.InFlight = Ended, 0
		}
		return s, nil
	}
}

func TestPlainLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		last, err := New(Options{Out: &out, Interval: 2 * time.Second}, story()).Run(t.Context())
		if err != nil || last.Open != 0 {
			t.Errorf("Run = %+v, %v", last, err)
		}
		if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\r") {
			t.Error("escapes in a pipe")
		}
		golden(t, "plain.txt", out.Bytes())
	})
}

func TestLiveFrames(t *testing.T) {
	for _, width := range []int{120, 60, 24} {
		t.Run(fmt.Sprintf("%d columns", width), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := &frames{}
				o := Options{Out: out, Terminal: true, Interval: time.Second, Width: func() int { return width }}
				if _, err := New(o, story()).Run(t.Context()); err != nil {
					t.Errorf("Run: %v", err)
				}
				for line := range strings.Lines(strings.Join(out.writes[:len(out.writes)-1], "\n")) {
					line = strings.NewReplacer("\r", "", escUp, "", escClearAll, "", escClearEnd, "", "\n", "").Replace(line)
					if n := utf8.RuneCountInString(line); n >= width {
						t.Errorf("a line of %d columns on a terminal of %d: %q", n, width, line)
					}
				}
				golden(t, fmt.Sprintf("live%d.txt", width), out.readable())
			})
		})
	}
}

// frames keeps every write apart: a frame that came in two would flicker.
type frames struct{ writes []string }

func (f *frames) Write(p []byte) (int, error) {
	f.writes = append(f.writes, string(p))
	return len(p), nil
}

// readable shows the escapes as words.
func (f *frames) readable() []byte {
	words := strings.NewReplacer("\r", "<cr>", escUp, "<up>", escClearAll, "<clear>", escClearEnd, "")
	return []byte(words.Replace(strings.Join(f.writes, "\n----\n")))
}

func TestQuietShowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		_, err := New(Options{Out: &out, Quiet: true, Terminal: true}, story()).Run(t.Context())
		if err != nil || out.Len() != 0 {
			t.Errorf("quiet wrote %q, %v", out.String(), err)
		}
	})
}

func TestInterruptTakesALastLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		var out bytes.Buffer
		last, err := New(Options{Out: &out, Terminal: true}, func(ctx context.Context) (Snapshot, error) {
			return Snapshot{Accepted: 10, Outcomes: map[string]int64{"ok": 4}, State: "running"}, ctx.Err()
		}).Run(ctx)
		if err != nil || last.Accepted != 10 {
			t.Errorf("Run = %+v, %v, want the last look", last, err)
		}
		if want := "\r" + escClearAll + "running after 3.5s: 4/10 40%, 0/s, 0 B\n"; !strings.HasSuffix(out.String(), want) {
			t.Errorf("output ends with %q, want %q", out.String()[max(0, out.Len()-80):], want)
		}
	})
}

func TestLogLinesStepAroundTheBar(t *testing.T) {
	out := &frames{}
	d := New(Options{Out: out, Terminal: true}, nil)
	log := d.Writer()
	fmt.Fprintln(log, "before")
	d.draw([]string{"bar", "below"})
	fmt.Fprintln(log, "during")
	d.clear()
	fmt.Fprintln(log, "after")
	frame := "bar" + escClearEnd + "\nbelow" + escClearAll
	back := "\r" + escUp + escClearAll
	want := []string{"before\n", frame, back + "during\n" + frame, back, "after\n"}
	if diff := cmp.Diff(want, out.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestSummaryRenderings(t *testing.T) {
	times := &Latency{}
	for i := range 5000 {
		times.Observe(fmt.Sprintf("host%d.example", i%7), time.Duration(20+i%100+100*(i%7))*time.Millisecond)
	}
	full := Summary{
		Job: "20260101-demo", State: Ended, Accepted: 5000, Outcomes: map[string]int64{"ok": 4900, "failed": 40, "http_error": 60},
		Classes: map[string]int64{"http_404": 60, "timeout": 30, "dns": 10, "reset": 0}, Duplicates: 12, BadLines: 1,
		Bytes: 123 << 20, Duration: 83 * time.Second, Latency: times, Output: "out/results.jsonl",
		Notes: []string{"40 requests failed: run again with --retry-failed to take them again"},
	}
	for name, s := range map[string]Summary{
		"full":  full,
		"empty": {Job: "20260101-demo", State: "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			var text, machine bytes.Buffer
			if err := s.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			if err := s.WriteJSON(&machine); err != nil {
				t.Fatal(err)
			}
			golden(t, "summary_"+name+".txt", text.Bytes())
			golden(t, "summary_"+name+".json", machine.Bytes())
		})
	}
}

func TestRateAndETA(t *testing.T) {
	start := time.Unix(1_790_000_000, 0)
	run := func(perSecond float64, seconds int, already int64) *rate {
		var r rate
		for i := range seconds*5 + 1 {
			at := float64(i) / 5
			r.add(start.Add(time.Duration(at*float64(time.Second))), already+int64(at*perSecond), 0)
		}
		return &r
	}
	done := func(n int64) map[string]int64 { return map[string]int64{"ok": n} }
	tests := map[string]struct {
		rate     *rate
		snapshot Snapshot
		want     time.Duration // 0 = not told
	}{
		"a steady rate tells the rest":        {run(100, 10, 0), Snapshot{Accepted: 7000, Outcomes: done(1000)}, time.Minute},
		"what an earlier run did is no speed": {run(100, 10, 5000), Snapshot{Accepted: 12000, Outcomes: done(6000)}, time.Minute},
		"too early to tell":                   {run(100, 2, 0), Snapshot{Accepted: 7000, Outcomes: done(200)}, 0},
		"nothing moves":                       {run(0, 10, 0), Snapshot{Accepted: 7000}, 0},
		"half the list read means twice as many": {run(100, 10, 0),
			Snapshot{Accepted: 3500, Outcomes: done(1000), Listing: true, ListDone: 50, ListTotal: 100}, time.Minute},
		"a list of unknown length tells nothing": {run(100, 10, 0),
			Snapshot{Accepted: 3500, Outcomes: done(1000), Listing: true, ListDone: 50}, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := test.rate.eta(test.snapshot)
			if ok != (test.want > 0) || (got-test.want).Abs() > test.want/50 {
				t.Errorf("eta = %s, %v, want %s", got, ok, test.want)
			}
		})
	}
}

func TestRateFollowsAChange(t *testing.T) {
	var r rate
	now, done := time.Unix(1_790_000_000, 0), int64(0)
	step := func(seconds int, perSecond int64) float64 {
		for range seconds {
			r.add(now, done, 0)
			now, done = now.Add(time.Second), done+perSecond
		}
		urls, _ := r.perSecond()
		return urls
	}
	if got := step(30, 100); got < 99 || got > 101 {
		t.Errorf("rate after 30 s at 100/s = %v", got)
	}
	if got := step(30, 10); got < 10 || got > 16 {
		t.Errorf("rate 30 s after it fell to 10/s = %v, want nearly 10", got)
	}
}

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		count(0): "0", count(999): "999", count(1000): "1,000", count(-1234567): "-1,234,567",
		size(0): "0 B", size(1023): "1023 B", size(1536): "1.5 KiB", size(10 << 10): "10 KiB", size(1<<20 - 1): "1.0 MiB",
		size(123 << 30): "123 GiB",
		speed(0):        "0/s", speed(.25): "0.25/s", speed(9.44): "9.4/s", speed(9.96): "10/s", speed(12345.4): "12,345/s",
		span(400 * time.Millisecond): "0.4s", span(42 * time.Second): "42s", span(59600 * time.Millisecond): "1m00s",
		span(185 * time.Second): "3m05s", span(2*time.Hour + 7*time.Minute): "2h07m", span(76 * time.Hour): "3d04h",
		latency(800 * time.Microsecond): "0.8 ms", latency(45 * time.Millisecond): "45 ms",
		latency(1240 * time.Millisecond): "1.24 s", latency(75 * time.Second): "75 s",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHostileTextCannotMoveTheCursor(t *testing.T) {
	v := view{Snapshot: Snapshot{HeldBack: "a\x1b[2J\r\nb"}, rate: &rate{}}
	for _, line := range v.frame(80) {
		if strings.ContainsAny(line, "\x1b\r\n") {
			t.Errorf("line %q holds control characters", line)
		}
	}
}

func TestLargeBodiesOnTheirWayAreShown(t *testing.T) {
	v := view{Snapshot: Snapshot{Large: 2, LargeHave: 600 << 20, LargeSize: 2458 << 20}, rate: &rate{}}
	if got, want := v.line(), "large bodies: 2, 600 MiB of 2.4 GiB"; !strings.HasSuffix(got, want) {
		t.Errorf("%q does not end in %q", got, want)
	}
}
