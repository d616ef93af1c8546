package names

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// sight is what was seen of the answers that a look-up got: Go's resolver tells addresses, but not for how long they hold.
type sight struct {
	mu     sync.Mutex
	ttl    time.Duration // the shortest of all answers, CNAMEs included
	some   bool          // ttl is known
	absent time.Duration // how long the absence holds (RFC 2308, section 5)
	none   bool          // absent is known
}

// positive is how long an answer holds, at most limit. On a nil sight it is limit.
func (s *sight) positive(limit time.Duration) time.Duration {
	if s == nil {
		return limit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.some {
		return min(limit, hostsFileTTL)
	}
	return min(limit, s.ttl)
}

// negative is how long the absence of a name holds, at most limit.
func (s *sight) negative(limit time.Duration) time.Duration {
	if s == nil {
		return limit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.none {
		return limit
	}
	return min(limit, s.absent)
}

// resolver returns one like base that shows its answers to s. It is good for one look-up.
func (s *sight) resolver(base *net.Resolver) *net.Resolver {
	dial := base.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &net.Resolver{PreferGo: true, StrictErrors: base.StrictErrors,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			if packets, ok := c.(net.PacketConn); ok { // which net.Resolver tells by this, too
				return &packetConn{Conn: c, packets: packets, sight: s}, nil
			}
			return &streamConn{Conn: c, sight: s}, nil
		}}
}

// packetConn shows each datagram that is read.
type packetConn struct {
	net.Conn
	packets net.PacketConn
	sight   *sight
}

// Read implements net.Conn.
func (c *packetConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.sight.see(p[:n])
	return n, err
}

// ReadFrom implements net.PacketConn.
func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.packets.ReadFrom(p)
	c.sight.see(p[:n])
	return n, from, err
}

// WriteTo implements net.PacketConn.
func (c *packetConn) WriteTo(p []byte, to net.Addr) (int, error) { return c.packets.WriteTo(p, to) }

// streamConn shows each message that is read, which a length of two bytes precedes (RFC 1035, section 4.2.2).
type streamConn struct {
	net.Conn
	sight *sight
	begun []byte // of a message that is not whole yet; at most 64 KiB
}

// Read implements net.Conn.
func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.begun = append(c.begun, p[:n]...)
	for len(c.begun) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(c.begun))
		if len(c.begun) < end {
			break
		}
		c.sight.see(c.begun[2:end])
		c.begun = c.begun[end:]
	}
	return n, err
}

// see notes the TTLs of one message. What is not a message, or not whole, says nothing.
func (s *sight) see(message []byte) {
	var p dnsmessage.Parser
	head, err := p.Start(message)
	if err != nil || !head.Response || head.Truncated || p.SkipAllQuestions() != nil {
		return
	}
	answers := 0
	for ; ; answers++ {
		h, err := p.AnswerHeader()
		if err != nil {
			break
		}
		s.note(&s.ttl, &s.some, h.TTL)
		if p.SkipAnswer() != nil {
			return
		}
	}
	if answers == 0 && p.SkipAllAnswers() == nil {
		s.seeAbsence(&p)
	}
}

// seeAbsence notes what the SOA record of an answer without answers says.
func (s *sight) seeAbsence(p *dnsmessage.Parser) {
	for {
		h, err := p.AuthorityHeader()
		if err != nil {
			return
		}
		if h.Type != dnsmessage.TypeSOA {
			if p.SkipAuthority() != nil {
				return
			}
			continue
		}
		soa, err := p.SOAResource()
		if err != nil {
			return
		}
		s.note(&s.absent, &s.none, min(h.TTL, soa.MinTTL))
	}
}

// note lowers what is known to seconds. A TTL with the highest bit set is 0 (RFC 2181, section 8).
func (s *sight) note(known *time.Duration, have *bool, seconds uint32) {
	if seconds > 1<<31-1 {
		seconds = 0
	}
	d := time.Duration(seconds) * time.Second
	s.mu.Lock()
	defer s.mu.Unlock()
	if !*have || d < *known {
		*known, *have = d, true
	}
}
