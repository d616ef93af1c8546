package discover

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
)

const (
	// consulWait is how long Consul may hold a question back until something changes; it adds up to a sixteenth.
	consulWait = 55 * time.Second
	// maxAnswer bounds Consul's answer: some 10,000 instances.
	maxAnswer = 16 << 20
	// The waits after questions that failed.
	minPause, maxPause = time.Second, 30 * time.Second
)

// watch keeps a service's instances up to date. The fields are set before ready is closed, and after that under no lock
// but the Directory's.
type watch struct {
	ready chan struct{} // closed once there is an answer or an error
	err   error         // of the last question, while none has been answered; or ErrNone
	told  bool          // there was an answer
}

// await makes sure that s is watched, and waits for the first answer.
func (d *Directory) await(ctx context.Context, s *service) error {
	w := d.watchOver(s)
	select {
	case <-w.ready:
		d.mu.Lock()
		defer d.mu.Unlock()
		return w.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Directory) watchOver(s *service) *watch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.watch != nil {
		return s.watch
	}
	if d.stop == nil {
		d.ctx, d.stop = context.WithCancel(context.Background())
	}
	w := &watch{ready: make(chan struct{})}
	s.watch = w
	ctx := d.ctx
	d.watchs.Go(func() { d.follow(ctx, s, w) })
	return w
}

// follow asks Consul again and again, each question answered when something has changed, until ctx ends.
func (d *Directory) follow(ctx context.Context, s *service, w *watch) {
	index, pause := uint64(0), minPause
	for ctx.Err() == nil {
		servers, next, err := d.ask(ctx, s.rule, index)
		d.tell(s, w, servers, err)
		if err == nil {
			// An index that goes back means that Consul began anew, and so must we.
			if next < index {
				next = 0
			}
			if index, pause = next, minPause; index > 0 {
				continue
			}
		}
		sleep(ctx, pause)
		pause = min(2*pause, maxPause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tell makes what came of a question known. While Consul cannot be reached its last answer holds.
func (d *Directory) tell(s *service, w *watch, servers []balance.Endpoint, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil && len(servers) == 0:
		w.err, w.told = ErrNone, true
	case err == nil:
		s.set.Update(servers)
		w.err, w.told = nil, true
	case !w.told:
		w.err = err
	}
	select {
	case <-w.ready:
	default:
		close(w.ready)
	}
}

// instance is what is read of an entry of /v1/health/service.
type instance struct {
	Node struct {
		Address string
	}
	Service struct {
		Address string
		Port    int
		Weights *struct {
			Passing int
		}
	}
}

// ask asks for the healthy instances as of after index: at once when index is 0, else when there is a newer state or
// consulWait has passed.
func (d *Directory) ask(ctx context.Context, r Rule, index uint64) ([]balance.Endpoint, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, consulWait+consulWait/16+10*time.Second)
	defer cancel()
	query := url.Values{"passing": {"true"}, "index": {strconv.FormatUint(index, 10)}, "wait": {consulWait.String()}}
	u := r.Base.JoinPath("v1", "health", "service", url.PathEscape(r.Service))
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	if d.o.Token != "" {
		req.Header.Set("X-Consul-Token", d.o.Token)
	}
	answer, err := d.o.Client.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("ask Consul at %s: %w", r.Base.Host, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("ask Consul at %s: it answered %s", r.Base.Host, answer.Status)
	}
	servers, err := readInstances(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, 0, fmt.Errorf("read the answer of Consul at %s: %w", r.Base.Host, err)
	}
	next, _ := strconv.ParseUint(answer.Header.Get("X-Consul-Index"), 10, 64) // without one every question is a first one
	return servers, next, nil
}

// readInstances reads an answer of /v1/health/service. Instances without a usable address or port are left out.
func readInstances(r io.Reader) ([]balance.Endpoint, error) {
	var instances []instance
	if err := json.NewDecoder(r).Decode(&instances); err != nil {
		return nil, err
	}
	servers := make([]balance.Endpoint, 0, len(instances))
	for _, i := range instances {
		host := i.Service.Address
		if host == "" {
			host = i.Node.Address
		}
		host, err := Canonical(host)
		if err != nil || i.Service.Port < 1 || i.Service.Port > 65535 {
			continue
		}
		weight := 1
		if i.Service.Weights != nil {
			weight = min(max(i.Service.Weights.Passing, 0), 65535)
		}
		servers = append(servers, balance.Endpoint{Host: host, Port: uint16(i.Service.Port), Weight: uint16(weight)})
	}
	return servers, nil
}
