// Package happy connects to the first of several addresses that answers, as Happy Eyeballs Version 2 does (RFC 8305,
// sections 4 and 5): families in turn, one attempt after another without waiting long for the one before.
package happy

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Delay is how long an attempt has to itself before the next begins (RFC 8305, section 8).
const Delay = 250 * time.Millisecond

// Interleave returns addrs with the families in turn, the first one's first, and otherwise in their order.
func Interleave(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// attempt is what came of dialling one of the addresses.
type attempt struct {
	conn net.Conn
	err  error
}

// Dial calls dial for each of n addresses, by index: for the next one when delay has passed since the last began, or at
// once when one fails. It returns the first connection; those that come later are closed, and dial's context ends. When
// all fail the error is that of the first to do so. n is at least 1, and ctx bounds the whole.
func Dial(ctx context.Context, n int, delay time.Duration, dial func(ctx context.Context, i int) (net.Conn, error)) (net.Conn, error) {
	if n == 1 {
		return dial(ctx, 0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, n)
	next := time.NewTimer(0)
	defer next.Stop()
	begun, ended := 0, 0
	var first error
	for {
		select {
		case <-next.C:
			if begun < n {
				i := begun
				begun++
				go func() { // ends with ctx at the latest
					c, err := dial(ctx, i)
					results <- attempt{c, err}
				}()
				next.Reset(delay)
			}
		case r := <-results:
			ended++
			if r.err == nil {
				go discard(results, begun-ended)
				return r.conn, nil
			}
			if first == nil {
				first = r.err
			}
			if ended == n || ctx.Err() != nil && ended == begun {
				return nil, first
			}
			next.Reset(0)
		}
	}
}

// discard closes the connections of attempts that came too late.
func discard(results <-chan attempt, n int) {
	for range n {
		if r := <-results; r.conn != nil {
			_ = r.conn.Close() // nobody has used it
		}
	}
}
