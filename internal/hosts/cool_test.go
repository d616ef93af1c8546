package hosts

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAShorterPauseDoesNotEndALongerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFleet(nil)
		for _, pause := range []time.Duration{20 * time.Second, 5 * time.Second, 0} {
			f.cool("x.test", pause)
			if got := f.pause("x.test"); got != 20*time.Second {
				t.Errorf("left alone for %s after a pause of %s, want 20 s", got, pause)
			}
		}
		f.cool("x.test", time.Minute)
		if got := f.pause("x.test"); got != time.Minute {
			t.Errorf("left alone for %s, want a minute", got)
		}
	})
}
