package worker

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCrewIsAsLargeAsTheHostIsSlow(t *testing.T) {
	tests := map[string]struct {
		answer time.Duration // how long each of ten requests takes
		hands  int
		all    time.Duration
	}{
		"answers within a step go one after another":    {answer: time.Millisecond, hands: 1, all: 10 * time.Millisecond},
		"slow ones all go beside each other, in a ramp": {answer: time.Second, hands: 10, all: time.Second + rampStep + 3*slowStep},
		"an end slows the ramp down":                    {answer: 6 * time.Millisecond, hands: 4, all: 24 * time.Millisecond},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var done atomic.Int64
				c := newCrew(10)
				began := time.Now()
				for range 10 {
					if !c.ready(t.Context()) {
						t.Fatal("not ready")
					}
					c.do(func() {
						time.Sleep(tt.answer)
						done.Add(1)
					})
				}
				c.wait()
				if got := time.Since(began); done.Load() != 10 || c.size != tt.hands || got != tt.all {
					t.Errorf("%d requests by %d hands within %v, want 10 by %d within %v",
						done.Load(), c.size, got, tt.hands, tt.all)
				}
			})
		})
	}
}

func TestCrewBeginsNothingAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), rampStep/2)
		defer cancel()
		c := newCrew(2)
		if !c.ready(ctx) {
			t.Error("the first request was not let in")
		}
		c.do(func() { time.Sleep(time.Hour) })
		if c.ready(ctx) {
			t.Error("the second request was let in after the end of the context")
		}
		c.wait()
	})
}
