package hosts_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhateverHappensLimitsHoldAndAllAreServed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		actions := []func(){w.arrive, w.arrive, w.arrive, w.arrive, w.die, w.cancel, w.wakeEarly, w.askTwice, w.pause, w.learn}
		for range rapid.IntRange(10, 120).Draw(t, "steps") {
			actions[rapid.IntRange(0, len(actions)-1).Draw(t, "what")]()
			w.pass(time.Duration(rapid.IntRange(1, 60).Draw(t, "ticks")) * tick)
		}
		clear(w.paused)
		for i := 0; len(w.batches) > 0; i++ {
			if i > 5000 {
				t.Fatalf("%d batches are not served after %d s: %+v", len(w.batches), i, w.batches[0])
			}
			w.pass(time.Second)
		}
		w.pass(10 * time.Second)
		w.checkWindows()
		if left := w.source.Left(); left != "" {
			t.Fatalf("state is left:\n%s", left)
		}
	})
}
