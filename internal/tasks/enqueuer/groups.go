package enqueuer

import (
	"container/list"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// pending is one request on its way into a batch.
type pending struct {
	url     string
	hash    int64
	request *tasks.Request // nil when it is nothing but its URL
}

// size is about how many payload bytes it takes.
func (p *pending) size() int {
	n := len(p.url) + 3
	if p.request != nil {
		n += len(p.request.Body)*4/3 + len(p.request.Meta) + len(p.request.Key) + 64
		for name, values := range p.request.Header {
			n += len(name) + 6
			for _, value := range values {
				n += len(value) + 3
			}
		}
		if p.request.RequestLimits != (tasks.RequestLimits{}) {
			n += 120 // names and figures of four durations
		}
		if p.request.Since != nil {
			n += p.request.Since.Size()
		}
	}
	return n
}

// group is the partial batch of one host.
type group struct {
	host    string
	target  int // requests at which it is closed: 1, 1, 2, 4, … so that few URLs of a host spread over the fleet
	seen    int
	bytes   int
	pending []pending
	age     *list.Element // its place among the partial batches, oldest first; nil while empty
}

// groups holds the partial batches of all hosts. When they take more than limit bytes the oldest are flushed; when
// maxHosts hosts are known those without requests at hand are forgotten, and start small again.
type groups struct {
	maxBatch, limit int
	hosts           map[string]*group
	byAge           *list.List
	bytes           int
}

const maxHosts = 100_000

// overhead is about how many bytes a pending request takes beside its URL.
const overhead = 64

func newGroups(maxBatch, limit int) *groups {
	return &groups{maxBatch: maxBatch, limit: limit, hosts: map[string]*group{}, byAge: list.New()}
}

// add puts a request into its host's batch and returns batches to be sent, which are valid until the next call.
func (gs *groups) add(host string, p pending) []batch {
	var out []batch
	g := gs.hosts[host]
	if g == nil {
		out = gs.forget()
		g = &group{host: host, target: 1}
		gs.hosts[host] = g
	}
	if g.bytes > 0 && g.bytes+p.size() > tasks.MaxPayload-256 {
		out = append(out, gs.take(g))
	}
	if g.age == nil {
		g.age = gs.byAge.PushBack(g)
	}
	if g.pending == nil {
		g.pending = make([]pending, 0, min(g.target, 8))
	}
	g.pending = append(g.pending, p)
	g.bytes += p.size()
	gs.bytes += p.size() + overhead
	if len(g.pending) >= g.target {
		out = append(out, gs.take(g))
	}
	for gs.bytes > gs.limit {
		out = append(out, gs.take(gs.oldest()))
	}
	return out
}

// batch is a closed group.
type batch struct {
	host    string
	pending []pending
}

// take closes a group's partial batch.
func (gs *groups) take(g *group) batch {
	b := batch{host: g.host, pending: g.pending}
	gs.bytes -= g.bytes + overhead*len(g.pending)
	gs.byAge.Remove(g.age)
	g.seen += len(g.pending)
	g.target = min(max(g.target, g.seen), gs.maxBatch)
	g.age, g.bytes, g.pending = nil, 0, nil
	return b
}

// oldest returns the group whose partial batch has waited longest, or nil.
func (gs *groups) oldest() *group {
	if e := gs.byAge.Front(); e != nil {
		return e.Value.(*group)
	}
	return nil
}

// forget makes room once too many hosts are known: it closes the older half of the partial batches, and drops all hosts
// without requests at hand. So it is called once in many hosts.
func (gs *groups) forget() []batch {
	if len(gs.hosts) < maxHosts {
		return nil
	}
	var out []batch
	for range gs.byAge.Len() / 2 {
		out = append(out, gs.take(gs.oldest()))
	}
	for name, g := range gs.hosts {
		if g.age == nil {
			delete(gs.hosts, name)
		}
	}
	return out
}
