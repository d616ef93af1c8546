package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a name server on loopback whose answers a test may change.
type server struct {
	t        *testing.T
	udp      net.PacketConn
	tcp      net.Listener
	asked    atomic.Int64 // questions for A records
	truncate bool
	hold     chan struct{} // if not nil, answers wait until it is closed

	mu      sync.Mutex
	addr    [4]byte
	ttl     uint32
	missing bool
	broken  bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, addr: [4]byte{192, 0, 2, 1}, ttl: 60}
	var err error
	if s.tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.udp, err = net.ListenPacket("udp4", s.tcp.Addr().String()); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(s.serveUDP)
	done.Go(s.serveTCP)
	t.Cleanup(func() {
		s.udp.Close()
		s.tcp.Close()
		done.Wait()
	})
	return s
}

func (s *server) set(change func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *server) serveUDP() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		s.mu.Lock()
		truncate := s.truncate
		s.mu.Unlock()
		s.udp.WriteTo(s.answer(buf[:n], truncate), from)
	}
}

func (s *server) serveTCP() {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 1500)
		n, _ := c.Read(buf)
		if n > 2 {
			reply := s.answer(buf[2:n], false)
			c.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...))
		}
		c.Close()
	}
}

func (s *server) answer(query []byte, truncated bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals, m.Truncated = true, nil, truncated
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if q.Type == dnsmessage.TypeA && !truncated {
		s.asked.Add(1)
		if hold != nil {
			<-hold
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: s.ttl}
	switch {
	case truncated:
	case s.broken:
		m.RCode = dnsmessage.RCodeServerFailure
	case s.missing:
		m.RCode = dnsmessage.RCodeNameError
		head.Type = dnsmessage.TypeSOA
		m.Authorities = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.SOAResource{NS: q.Name, MBox: q.Name, MinTTL: 2}}}
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: s.addr}}}
	case q.Type == dnsmessage.TypeSRV:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 8080, Target: dnsmessage.MustNewName("a.test.")}}}
	}
	reply, err := m.Pack()
	if err != nil {
		s.t.Error(err)
	}
	return reply
}

func (s *server) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.udp.LocalAddr().String())
	}}
}

// clock is a clock that a test sets.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Unix(0, c.now.Load()) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d)) }

func newCache(s *server, o Options) (*Cache, *clock) {
	c := &clock{}
	o.Resolver, o.Now = s.resolver(), c.Now
	return New(o), c
}

func look(t *testing.T, c *Cache, host string) string {
	t.Helper()
	addrs, err := c.Lookup(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(addrs)
}

func TestAnAnswerHoldsAsLongAsItsTTLAndNoLonger(t *testing.T) {
	for claim, c := range map[string]struct {
		ttl      uint32
		max      time.Duration
		truncate bool
		holds    time.Duration
	}{
		"the record's TTL":              {ttl: 60, holds: time.Minute},
		"the cap, where that is less":   {ttl: 3600, max: 10 * time.Second, holds: 10 * time.Second},
		"the default cap":               {ttl: 3600, holds: 5 * time.Minute},
		"an answer over TCP has it too": {ttl: 60, truncate: true, holds: time.Minute},
		"a TTL of 0 is not remembered":  {ttl: 0, holds: 0},
		"a TTL out of range is 0":       {ttl: 1 << 31, holds: 0},
		"nothing, with a cap below 0":   {ttl: 60, max: -1, holds: 0},
	} {
		t.Run(claim, func(t *testing.T) {
			s := newServer(t)
			s.set(func(s *server) { s.ttl, s.truncate = c.ttl, c.truncate })
			cache, clock := newCache(s, Options{MaxTTL: c.max})
			if got := look(t, cache, "a.test"); got != "[192.0.2.1]" {
				t.Fatal(got)
			}
			s.set(func(s *server) { s.addr = [4]byte{192, 0, 2, 2} })
			if c.holds > 0 {
				clock.advance(c.holds - 1)
				if got := look(t, cache, "A.test"); got != "[192.0.2.1]" {
					t.Errorf("before its end: %s", got)
				}
				clock.advance(1)
			}
			if got := look(t, cache, "a.test"); got != "[192.0.2.2]" {
				t.Errorf("at its end: %s", got)
			}
		})
	}
}

func TestAbsenceIsRememberedForAWhileAndTroubleIsNot(t *testing.T) {
	s := newServer(t)
	s.set(func(s *server) { s.missing = true })
	cache, clock := newCache(s, Options{})
	missing := func() {
		t.Helper()
		var e *net.DNSError
		if _, err := cache.Lookup(t.Context(), "a.test"); !errors.As(err, &e) || !e.IsNotFound {
			t.Fatalf("got %v, want that it is not there", err)
		}
	}
	missing()
	asked := s.asked.Load()
	clock.advance(2*time.Second - 1) // the SOA record says 2 s
	missing()
	if n := s.asked.Load(); n != asked {
		t.Errorf("asked %d times again within the negative TTL", n-asked)
	}
	clock.advance(1)
	s.set(func(s *server) { s.missing = false })
	look(t, cache, "a.test")
	if got, want := cache.Stats(), (Stats{Hits: 1, Misses: 2, Negative: 2}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}

	s.set(func(s *server) { s.broken = true })
	if _, err := cache.Lookup(t.Context(), "b.test"); err == nil {
		t.Fatal("no error")
	}
	s.set(func(s *server) { s.broken = false })
	look(t, cache, "b.test")
}

func TestLookUpsOfOneNameAreOne(t *testing.T) {
	s := newServer(t)
	hold := make(chan struct{})
	s.set(func(s *server) { s.hold = hold })
	cache, _ := newCache(s, Options{})
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cache.Lookup(impatient, "a.test"); err == nil {
		t.Error("who does not wait gets no answer")
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { look(t, cache, "a.test") })
	}
	close(hold)
	all.Wait()
	if n := s.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestTheMemoryIsBounded(t *testing.T) {
	s := newServer(t)
	cache, _ := newCache(s, Options{MaxNames: 10})
	for i := range 50 {
		look(t, cache, fmt.Sprintf("a%d.test", i))
	}
	if n := len(cache.entries); n > 10 {
		t.Errorf("%d names are remembered, want 10 at most", n)
	}
}

func TestWhatIsForgottenIsAskedAgain(t *testing.T) {
	s := newServer(t)
	cache, _ := newCache(s, Options{})
	look(t, cache, "a.test")
	cache.Forget("A.TEST")
	look(t, cache, "a.test")
	if n := s.asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}

func TestAddressesAndTheHostsFileNeedNoNameServer(t *testing.T) {
	s := newServer(t)
	cache, _ := newCache(s, Options{})
	if got := look(t, cache, "::1"); got != "[::1]" {
		t.Error(got)
	}
	if got := look(t, cache, "localhost"); !strings.Contains(got, netip.AddrFrom4([4]byte{127, 0, 0, 1}).String()) {
		t.Error(got)
	}
	if n := s.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

func TestServiceRecordsComeWithTheirTTL(t *testing.T) {
	s := newServer(t)
	cache, _ := newCache(s, Options{MaxTTL: time.Hour})
	records, ttl, err := cache.SRV(t.Context(), "_http._tcp.a.test")
	want := []*net.SRV{{Target: "a.test.", Port: 8080, Priority: 1, Weight: 2}}
	if diff := cmp.Diff(want, records); diff != "" || ttl != time.Minute || err != nil {
		t.Errorf("ttl %v, error %v, -want +got:\n%s", ttl, err, diff)
	}
}

func FuzzSee(f *testing.F) {
	m := dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Answers: []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 7},
		Body:   &dnsmessage.AResource{},
	}}}
	seed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		s := &sight{}
		s.see(message)
		if d := s.positive(time.Hour); d < 0 || d > time.Hour {
			t.Errorf("an answer holds %v", d)
		}
		if d := s.negative(time.Hour); d < 0 || d > time.Hour {
			t.Errorf("an absence holds %v", d)
		}
	})
}
