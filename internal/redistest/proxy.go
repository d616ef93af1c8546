package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TCPProxy stands between a client and a server and can be cut, healed, slowed down and robbed of its answers. All methods may be called
// from any goroutine.
type TCPProxy struct {
	target   string
	listener net.Listener
	delay    atomic.Int64 // nanoseconds each way
	mute     atomic.Bool  // answers are swallowed
	dials    atomic.Int64
	running  sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

// Proxy starts a proxy to target on a free loopback port. It ends with the test.
func Proxy(t testing.TB, target string) *TCPProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: listen for a proxy to %s: %v", target, err)
	}
	p := &TCPProxy{target: target, listener: listener, conns: map[net.Conn]struct{}{}}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Addr returns the HOST:PORT that clients connect to.
func (p *TCPProxy) Addr() string { return p.listener.Addr().String() }

// Cut resets every connection, and every new one as soon as it is made, until Heal.
func (p *TCPProxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for conn := range p.conns {
		reset(conn)
	}
}

// Heal lets new connections through again.
func (p *TCPProxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// Delay makes bytes arrive d later, each way, from now on. 0 takes the delay away.
func (p *TCPProxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// Mute swallows what the server answers, from now on: commands arrive and are done, and nobody hears of it. A connection
// that lost an answer is of no use afterwards. false lets answers through again.
func (p *TCPProxy) Mute(on bool) { p.mute.Store(on) }

// Dials returns how many connections clients have attempted, those reset by a cut included.
func (p *TCPProxy) Dials() int64 { return p.dials.Load() }

func (p *TCPProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed by the test's end
		}
		p.dials.Add(1)
		p.running.Go(func() { p.carry(client) })
	}
}

// carry joins one client with one connection to the target until either side ends.
func (p *TCPProxy) carry(client net.Conn) {
	if !p.track(client) {
		return
	}
	defer p.forget(client)
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		reset(client)
		return
	}
	if !p.track(server) {
		return
	}
	defer p.forget(server)
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client, func() bool { return false }) })
	both.Go(func() { p.pump(client, server, p.mute.Load) })
	both.Wait()
}

// chunk is what was read at once, and when it is due on the other side.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pump moves bytes one way, each read as late as Delay asks, without lowering the throughput. What is read while
// swallowed says so is dropped.
func (p *TCPProxy) pump(to, from net.Conn, swallowed func() bool) {
	chunks := make(chan chunk, 256)
	var writer sync.WaitGroup
	writer.Go(func() {
		for c := range chunks {
			time.Sleep(time.Until(c.due))
			if _, err := to.Write(c.bytes); err != nil {
				_ = from.Close() // ends the reader; what is left in chunks is drained into the same error
			}
		}
		_ = to.Close()
	})
	for {
		buffer := make([]byte, 16<<10)
		n, err := from.Read(buffer)
		if n > 0 && !swallowed() {
			chunks <- chunk{buffer[:n], time.Now().Add(time.Duration(p.delay.Load()))}
		}
		if err != nil {
			break
		}
	}
	close(chunks)
	writer.Wait()
}

// track remembers a connection so that Cut finds it. It resets the connection and answers false while cut.
func (p *TCPProxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		reset(conn)
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *TCPProxy) forget(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

// reset ends a connection with a TCP reset rather than an orderly end.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
