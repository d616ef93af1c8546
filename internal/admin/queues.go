package admin

import (
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Bounds of the look at the queues. asynq samples tasks for every answer, so it is asked rarely; a scrape waits for
// the answer a moment, and else gets the figures of last time.
const (
	queuesFresh = 5 * time.Second
	queuesWait  = time.Second
	mostQueues  = 32 // label values; asynq's queues are few
)

var (
	queueTasks = prometheus.NewDesc("fetchfleet_queue_tasks", "Tasks (batches) in a queue, by state.",
		[]string{"queue", "state"}, nil)
	queueLatency = prometheus.NewDesc("fetchfleet_queue_latency_seconds", "Age of the oldest pending task of a queue.",
		[]string{"queue"}, nil)
	queuePaused = prometheus.NewDesc("fetchfleet_queue_paused", "1 while a queue is paused.", []string{"queue"}, nil)
)

// queueCollector tells the depths of asynq's queues to Prometheus. Queues that cannot be read keep their last figures.
type queueCollector struct {
	inspector *asynq.Inspector

	mu     sync.Mutex
	infos  map[string]*asynq.QueueInfo
	read   time.Time     // when infos was read
	busy   chan struct{} // closed when the read under way ends; nil when there is none
	closed bool
}

func newQueueCollector(client redis.UniversalClient) *queueCollector {
	return &queueCollector{
		inspector: asynq.NewInspectorFromRedisClient(client), infos: map[string]*asynq.QueueInfo{},
	}
}

// Describe implements prometheus.Collector.
func (c *queueCollector) Describe(to chan<- *prometheus.Desc) {
	to <- queueTasks
	to <- queueLatency
	to <- queuePaused
}

// Collect implements prometheus.Collector.
func (c *queueCollector) Collect(to chan<- prometheus.Metric) {
	if busy := c.refresh(); busy != nil {
		timer := time.NewTimer(queuesWait)
		defer timer.Stop()
		select {
		case <-busy:
		case <-timer.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for queue, info := range c.infos {
		for state, n := range map[string]int{
			"pending": info.Pending, "active": info.Active, "scheduled": info.Scheduled, "retry": info.Retry,
			"archived": info.Archived, "completed": info.Completed,
		} {
			to <- prometheus.MustNewConstMetric(queueTasks, prometheus.GaugeValue, float64(n), queue, state)
		}
		to <- prometheus.MustNewConstMetric(queueLatency, prometheus.GaugeValue, info.Latency.Seconds(), queue)
		to <- prometheus.MustNewConstMetric(queuePaused, prometheus.GaugeValue, number(info.Paused), queue)
	}
}

// refresh starts reading the queues unless that was done lately or is under way. It returns what to wait for, nil
// when the figures are fresh.
func (c *queueCollector) refresh() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy != nil || c.closed || time.Since(c.read) < queuesFresh {
		return c.busy
	}
	busy := make(chan struct{})
	c.busy = busy
	go func() { // ends within the client's own limits; close waits for it
		infos := c.look()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.infos, c.read, c.busy = infos, time.Now(), nil
		close(busy)
	}()
	return busy
}

// look reads every queue. One that fails (asynq may trip over a task that vanished) keeps its last figures.
func (c *queueCollector) look() map[string]*asynq.QueueInfo {
	c.mu.Lock()
	last := c.infos
	c.mu.Unlock()
	names, err := c.inspector.Queues()
	if err != nil {
		return last
	}
	slices.Sort(names)
	infos := map[string]*asynq.QueueInfo{}
	for _, name := range names[:min(len(names), mostQueues)] {
		if info, err := c.inspector.GetQueueInfo(name); err == nil {
			infos[name] = info
		} else if old := last[name]; old != nil {
			infos[name] = old
		}
	}
	return infos
}

// close waits for a read under way and starts no more.
func (c *queueCollector) close() {
	c.mu.Lock()
	c.closed = true
	busy := c.busy
	c.mu.Unlock()
	if busy != nil {
		<-busy
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
