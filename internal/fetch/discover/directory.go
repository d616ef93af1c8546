package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
)

// Options configure a Directory. The zero value knows no host.
type Options struct {
	Rules []Rule
	// SRV looks service records up and says how long they hold; needed for SRV rules.
	SRV func(ctx context.Context, name string) ([]*net.SRV, time.Duration, error)
	// Client asks Consul; needed for Consul rules. It must have no timeout of its own below 2 min.
	Client *http.Client
	// Token is sent to Consul; "" means none.
	Token string
}

// Directory says where the servers of hosts are. It is safe for concurrent use.
type Directory struct {
	o        Options
	services map[key]*service

	mu     sync.Mutex
	stop   context.CancelFunc // ends the watches; nil while there are none
	ctx    context.Context    //nolint:containedctx // of the watches, which no caller outlives
	watchs sync.WaitGroup
}

type key struct {
	host string
	port uint16
}

// service is a rule and what came of it.
type service struct {
	rule Rule
	set  balance.Set

	// Of an SRV rule.
	asking  chan struct{} // holds one token while somebody asks
	expires time.Time     // under asking

	// Of a Consul rule, under the Directory's lock.
	watch *watch
}

// retryAfter is how long what is known of a service is used on when nothing newer can be had.
const retryAfter = 5 * time.Second

// New returns a Directory. It asks for nothing before the first Find. Of two rules for one host the last is in force.
func New(o Options) *Directory {
	d := &Directory{o: o, services: map[key]*service{}}
	for _, rule := range o.Rules {
		s := &service{rule: rule, asking: make(chan struct{}, 1)}
		if rule.Kind == Fixed {
			s.set.Update(rule.Servers)
		}
		d.services[key{rule.Host, rule.Port}] = s
	}
	return d
}

// Find returns the servers of host, nil when no rule is about it. An error means that there is a rule, and no server: one
// cause is ErrNone, others are net's and Consul's. ctx bounds the wait.
func (d *Directory) Find(ctx context.Context, host string, port uint16) (*balance.Set, error) {
	if len(d.services) == 0 {
		return nil, nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	s := d.services[key{host, port}]
	if s == nil {
		s = d.services[key{host, 0}]
	}
	if s == nil {
		return nil, nil
	}
	var err error
	switch s.rule.Kind {
	case SRV:
		err = d.refresh(ctx, s)
	case Consul:
		err = d.await(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("find servers of %s: %w", host, err)
	}
	return &s.set, nil
}

// ErrNone means that a service is known and has no healthy instance.
var ErrNone = errors.New("no healthy instance")

// refresh looks the records up anew once they have expired. Those that wait for it share one look-up.
func (d *Directory) refresh(ctx context.Context, s *service) error {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if time.Now().Before(s.expires) {
		return nil
	}
	records, ttl, err := d.o.SRV(ctx, s.rule.Name)
	if e, ok := errors.AsType[*net.DNSError](err); ok && !e.IsNotFound && !s.expires.IsZero() {
		s.expires = time.Now().Add(retryAfter) // the name servers are in trouble, the service need not be
		return nil
	}
	if err != nil {
		return err
	}
	servers := make([]balance.Endpoint, 0, len(records))
	for _, r := range records {
		if target := strings.TrimSuffix(r.Target, "."); target != "" { // "." says that there is no such service (RFC 2782)
			servers = append(servers, balance.Endpoint{Host: target, Port: r.Port, Priority: r.Priority, Weight: r.Weight})
		}
	}
	if len(servers) == 0 {
		return ErrNone
	}
	s.set.Update(servers)
	s.expires = time.Now().Add(ttl)
	return nil
}

// Close ends the watches over Consul and waits for them. A Find after it begins them anew.
func (d *Directory) Close() {
	d.mu.Lock()
	if d.stop != nil {
		d.stop()
		d.stop = nil
	}
	for _, s := range d.services {
		s.watch = nil
	}
	d.mu.Unlock()
	d.watchs.Wait()
}
