// Package embedded is a Redis inside the process, for runs that need no setup. It serves asynq and the ledger on a
// free loopback port, behind a password made for the run, and tells real time.
//
// It promises no persistence: what it held is gone with the process, and the ledger is rebuilt from the store. It
// promises no speed beyond a few thousand batches per second. Some commands of a real Redis are missing; INFO tells
// neither version nor memory.
package embedded

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Redis is one in-process server.
type Redis struct {
	server   *miniredis.Miniredis
	password string
	stop     chan struct{}
	once     sync.Once
	ticking  sync.WaitGroup
}

// Start starts a server on a free port of 127.0.0.1. The caller closes it, after every client of it.
func Start() (*Redis, error) {
	r := &Redis{server: miniredis.NewMiniRedis(), password: rand.Text(), stop: make(chan struct{})}
	r.server.RequireAuth(r.password) // other users of the machine can reach the port, too
	if err := r.server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	r.ticking.Go(r.tick)
	return r, nil
}

// URL returns the redis:// URL of the server, password included.
func (r *Redis) URL() string {
	u := url.URL{Scheme: "redis", User: url.UserPassword("", r.password), Host: r.server.Addr(), Path: "/0"}
	return u.String()
}

// Close ends the server and everything in it. It may be called twice.
func (r *Redis) Close() {
	r.once.Do(func() {
		close(r.stop)
		r.ticking.Wait()
		r.server.Close()
	})
}

// The server is asked to move its times to live once per tickEvery, and rests restFactor times as long as that took,
// because it walks over all keys and holds everybody up meanwhile.
const (
	tickEvery  = time.Second
	restFactor = 50
)

// tick moves times to live by the time that went by: the server does not do it on its own, and its way of doing it
// at every command walks over all keys each time.
func (r *Redis) tick() {
	last := time.Now()
	timer := time.NewTimer(tickEvery)
	defer timer.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-timer.C:
		}
		began := time.Now()
		r.server.FastForward(began.Sub(last))
		last = began
		timer.Reset(max(tickEvery, restFactor*time.Since(began)))
	}
}
