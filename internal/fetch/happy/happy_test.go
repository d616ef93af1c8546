package happy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFamiliesTakeTurns(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "[]",
		"192.0.2.1":                         "[192.0.2.1]",
		"2001:db8::1 2001:db8::2 192.0.2.1": "[2001:db8::1 192.0.2.1 2001:db8::2]",
		"192.0.2.1 192.0.2.2 2001:db8::1":   "[192.0.2.1 2001:db8::1 192.0.2.2]",
	} {
		var addrs []netip.Addr
		var text string
		for rest := in; rest != ""; {
			n, _ := fmt.Sscan(rest, &text)
			if n == 0 {
				break
			}
			addrs = append(addrs, netip.MustParseAddr(text))
			rest = rest[min(len(rest), len(text)+1):]
		}
		if got := fmt.Sprint(Interleave(addrs)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// closing is a connection that tells when it is closed.
type closing struct {
	net.Conn
	i      int
	closed *atomic.Int64
}

func (c *closing) Close() error { c.closed.Add(1); return nil }

// address is how one address behaves: it answers after so long, or fails after so long.
type address struct {
	after time.Duration
	fails bool
	deaf  bool // it does not notice that nobody waits any more
}

func TestTheFirstThatAnswersWins(t *testing.T) {
	const never = time.Hour
	for claim, c := range map[string]struct {
		addrs  []address
		winner int
		took   time.Duration
		closed int64
	}{
		"one":                                   {[]address{{after: time.Second}}, 0, time.Second, 0},
		"the first, if it is quick":             {[]address{{after: Delay - 1}, {}}, 0, Delay - 1, 0},
		"the second 250 ms later":               {[]address{{after: never}, {}}, 1, Delay, 0},
		"the second at once if the first fails": {[]address{{fails: true}, {}}, 1, 0, 0},
		"the first, though others have begun":   {[]address{{after: 3 * Delay}, {after: never}, {after: never}, {after: never}}, 0, 3 * Delay, 0},
		"and what comes too late is closed":     {[]address{{after: 2 * Delay, deaf: true}, {after: Delay / 2}}, 1, Delay * 3 / 2, 1},
	} {
		t.Run(claim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var closed atomic.Int64
				start := time.Now()
				got, err := Dial(t.Context(), len(c.addrs), Delay, dialer(c.addrs, &closed))
				if err != nil {
					t.Fatal(err)
				}
				if i, took := got.(*closing).i, time.Since(start); i != c.winner || took != c.took {
					t.Errorf("%d won after %v, want %d after %v", i, took, c.winner, c.took)
				}
				time.Sleep(never)
				synctest.Wait()
				if n := closed.Load(); n != c.closed {
					t.Errorf("%d closed, want %d", n, c.closed)
				}
			})
		})
	}
}

func dialer(addrs []address, closed *atomic.Int64) func(context.Context, int) (net.Conn, error) {
	return func(ctx context.Context, i int) (net.Conn, error) {
		a := addrs[i]
		done := ctx.Done()
		if a.deaf {
			done = nil
		}
		select {
		case <-time.After(a.after):
		case <-done:
			return nil, ctx.Err()
		}
		if a.fails {
			return nil, fmt.Errorf("%d fails", i)
		}
		return &closing{i: i, closed: closed}, nil
	}
}

func TestWhenAllFailTheFirstErrorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := Dial(t.Context(), 3, Delay, dialer([]address{{after: time.Second, fails: true}, {after: 600 * time.Millisecond, fails: true}, {after: time.Second, fails: true}}, nil))
		if err == nil || err.Error() != "1 fails" {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheTimeIsLimitedForAllTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
		defer cancel()
		var begun sync.Map
		start := time.Now()
		_, err := Dial(ctx, 16, Delay, func(ctx context.Context, i int) (net.Conn, error) {
			begun.Store(i, true)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 600*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if _, ok := begun.Load(4); ok {
			t.Error("more was begun than there was time for")
		}
	})
}
