package ledger

import "github.com/fetchfleet/fetchfleet/internal/tasks"

// Keys of all jobs. They are a public contract: they are only added to.
const (
	jobsKey = "fetchfleet:jobs" // ZSET job → created, ms
	liveKey = "fetchfleet:live" // SET of jobs that have not ended
)

// keys names everything the ledger keeps of one job. The braces keep a job on one node.
type keys struct {
	prefix      string
	spec        string // STRING the policy, JSON
	stats       string // HASH counters; created, sealed, ended (ms); store; seen_sets; large (1: it had large bodies)
	open        string // HASH batch → number of requests
	outbox      string // HASH batch → "DUE|SINCE|payload" (ms), until asynq has it
	begun       string // HASH batch → "COUNT COMPANY TOKEN": deliveries begun and neither finished nor returned, those beside suspects, the last
	waits       string // HASH batch → "WAITS SINCE ERROR": waits in a row, since when (ms), what went wrong last
	generations string // HASH request → generation, of those taken more than once
	archived    string // HASH batch → note, of those whose last attempt failed
	bases       string // HASH batch → asynq's retry count at its replay
	pace        string // HASH ten-second span → requests recorded
	large       string // HASH request → how far its large body is, JSON
	jars        string // SET domains that have a jar
	seen        string // prefix of the SETs of request hashes
}

func keysOf(job tasks.JobID) keys {
	p := "fetchfleet:{" + string(job) + "}:"
	return keys{
		prefix: p, spec: p + "spec", stats: p + "stats", open: p + "open", outbox: p + "outbox",
		begun: p + "begun", waits: p + "waits", generations: p + "generations",
		archived: p + "archived", bases: p + "bases", pace: p + "pace", large: p + "large", jars: p + "jars", seen: p + "seen:",
	}
}

func (k keys) body(key string) string { return k.prefix + "body:" + key }

// jar is a HASH "DOMAIN;PATH;NAME" → cookie, JSON. It goes as the job ends.
func (k keys) jar(domain string) string { return k.prefix + "jar:" + domain }
