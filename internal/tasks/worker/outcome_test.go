package worker

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// plainSpec has waits that can be told: 1s, 2s, 4s … up to a minute.
func plainSpec() *tasks.Spec {
	s := tasks.DefaultSpec()
	s.Backoff = tasks.Backoff{Base: tasks.Duration(time.Second), Factor: 2, Cap: tasks.Duration(time.Minute), Jitter: "none"}
	return &s
}

func verdictOn(t *testing.T, h happening, p past, spec *tasks.Spec) verdict {
	t.Helper()
	rule, err := spec.RetryOn.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return decide(h, p, &tasks.Request{URL: "http://h/"}, spec, rule, noon, 0.5)
}

// known is the retry table of the README, row by row: what is tried again, and how often in all with the default of
// four retries. 0 stands for waits that cost no attempt.
var known = map[string]int{
	"200": 1, "204": 1, "206": 1, "300": 1, "304": 1, "400": 1, "401": 1, "403": 1, "404": 1, "405": 1, "410": 1, "451": 1,
	"501": 1, "505": 1, "511": 1,
	"408": 5, "425": 5, "500": 5, "502": 5, "504": 5,
	"429": 0, "503": 0,

	string(fetch.DNSTemporary): 5, string(fetch.DNSNotFound): 2,
	string(fetch.ConnectRefused): 5, string(fetch.ConnectUnreachable): 5, string(fetch.ConnectTimeout): 5,
	string(fetch.TLSTimeout): 5, string(fetch.HeaderTimeout): 5, string(fetch.IdleTimeout): 5, string(fetch.TooSlow): 5, string(fetch.TotalTimeout): 5,
	string(fetch.Reset): 5, string(fetch.BodyCut): 5, string(fetch.Other): 5, string(fetch.Auth): 5,
	string(fetch.URLInvalid): 1, string(fetch.RequestInvalid): 1, string(fetch.AddressRefused): 1,
	string(fetch.Proxy): 5, string(fetch.PoolTimeout): 5,
	string(fetch.TLSCertificate): 1, string(fetch.TLS): 1, string(fetch.Protocol): 1, string(fetch.HeaderTooLarge): 1,
	string(fetch.BodyTooLarge): 1, string(fetch.Decode): 1, string(fetch.DecodeTooLarge): 1, string(fetch.DecodeRatio): 1, string(fetch.ContentType): 1,
	string(fetch.RedirectInvalid): 1, string(fetch.TooManyRedirects): 1, string(fetch.Secret): 1,
	classStore: 1,
}

func happened(name string) happening {
	if status, err := strconv.Atoi(name); err == nil {
		return happening{status: status}
	}
	return happening{class: name, message: "m"}
}

func TestEveryHappeningHasItsRow(t *testing.T) {
	for _, class := range fetch.Classes() {
		if _, ok := known[string(class)]; !ok && class != fetch.Canceled {
			t.Errorf("class %s has no row", class)
		}
	}
	for name, attempts := range known {
		t.Run(name, func(t *testing.T) {
			h, p := happened(name), past{}
			for n := 1; ; n++ {
				v := verdictOn(t, h, p, plainSpec())
				switch {
				case attempts == 0:
					want := past{waits: 1, waitSince: noon.UnixMilli()}
					if v.step != stepWait || v.past != want || v.delay != time.Second {
						t.Errorf("verdict %+v, want a free wait of 1s", v)
					}
					return
				case n < attempts:
					want := verdict{step: stepRetry, delay: time.Second << (n - 1), past: past{attempts: n}}
					if diff := cmp.Diff(want, v, cmp.AllowUnexported(verdict{}, past{}, happening{})); diff != "" {
						t.Fatalf("attempt %d: %s", n, diff)
					}
				default:
					want := verdict{step: stepRecord, past: past{attempts: attempts}, final: h}
					if diff := cmp.Diff(want, v, cmp.AllowUnexported(verdict{}, past{}, happening{})); diff != "" {
						t.Errorf("attempt %d: %s", n, diff)
					}
					return
				}
				p = v.past
			}
		})
	}
}

func TestWhatIsRecordedOfTheLastAttempt(t *testing.T) {
	for name, c := range map[string]struct {
		h       happening
		outcome store.Outcome
		class   string
		text    string
	}{
		"answered":   {happening{status: 200}, store.OK, "", ""},
		"no content": {happening{status: 204}, store.OK, "", ""},
		"unchanged":  {happening{status: 304, unchanged: true}, store.OK, "", ""},
		"not found":  {happening{status: 404}, store.HTTPError, "http_404", "http_404: the server answered 404"},
		"redirect to nowhere": {happening{status: 302}, store.HTTPError, "http_302",
			"http_302: the server answered 302"},
		"another type": {happening{status: 200, class: "content_type", message: "m"}, store.Skipped, "content_type", "content_type: m"},
		"reset":        {happening{class: "reset", message: "by peer"}, store.Failed, "reset", "reset: by peer"},
	} {
		if got := c.h.outcome(); got != c.outcome || c.h.errorClass() != c.class || c.text != "" && c.h.text() != c.text {
			t.Errorf("%s: %s, %q, %q", name, got, c.h.errorClass(), c.h.text())
		}
	}
}

func TestNineWaitsAreFreeAndTheTenthCounts(t *testing.T) {
	for _, status := range []int{429, 503} {
		spec := plainSpec()
		p, now := past{}, noon
		for n := 1; n <= 9+4; n++ {
			v := decide(happening{status: status}, p, &tasks.Request{}, spec, nil, now, 0.5)
			want, attempts := stepWait, 0
			if n > 9 {
				want, attempts = stepRetry, n-9
			}
			if v.step != want || v.past.attempts != attempts || v.past.waits != n || v.past.waitSince != noon.UnixMilli() {
				t.Fatalf("%d, the %dth: %+v, want step %d with %d attempts", status, n, v, want, attempts)
			}
			p, now = v.past, now.Add(v.delay)
		}
		v := decide(happening{status: status}, p, &tasks.Request{}, spec, nil, now, 0.5)
		if v.step != stepRecord || v.final.status != status || v.past.attempts != 5 {
			t.Errorf("%d, the 14th: %+v, want the record of the fifth attempt", status, v)
		}
	}
}

func TestAnotherHappeningEndsARowOfWaits(t *testing.T) {
	v := verdictOn(t, happening{status: 500}, past{attempts: 1, waits: 9, waitSince: noon.Add(-time.Hour).UnixMilli()}, plainSpec())
	if want := (past{attempts: 2}); v.step != stepRetry || v.past != want {
		t.Errorf("verdict %+v, want past %+v", v, want)
	}
}

func TestPatienceEndsARowOfWaits(t *testing.T) {
	spec := plainSpec()
	spec.Patience = tasks.Duration(time.Hour)
	for name, c := range map[string]struct {
		since time.Duration // ago
		waits int
		step  step
		delay time.Duration
	}{
		"the first":                    {0, 0, stepWait, time.Second},
		"an old row that was cut":      {2 * time.Hour, 0, stepWait, time.Second},
		"some patience left":           {time.Hour - 10*time.Second, 2, stepWait, 4 * time.Second},
		"less left than the wait":      {time.Hour - time.Second, 2, stepWait, time.Second},
		"the last millisecond":         {time.Hour - time.Millisecond, 2, stepWait, time.Millisecond},
		"at the boundary":              {time.Hour, 2, stepRecord, 0},
		"after it, attempts left over": {2 * time.Hour, 12, stepRecord, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := past{attempts: 1, waits: c.waits, waitSince: noon.Add(-c.since).UnixMilli()}
			v := verdictOn(t, happening{status: 429}, p, spec)
			if v.step != c.step || v.delay != c.delay {
				t.Fatalf("verdict %+v, want step %d after %s", v, c.step, c.delay)
			}
			if c.step == stepRecord && (v.final.class != classHostUnavailable || v.final.outcome() != store.Failed || v.past.attempts != 1) {
				t.Errorf("final %+v after %d attempts, want %s and no attempt used up", v.final, v.past.attempts, classHostUnavailable)
			}
		})
	}
}

func TestRetryAfterWinsUpToACap(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		asked  time.Duration
		p      past
		want   time.Duration
	}{
		"longer than the backoff":        {429, 30 * time.Second, past{}, 30 * time.Second},
		"beyond the cap":                 {429, 100 * time.Hour, past{}, maxRetryAfter},
		"sooner than the backoff, too":   {503, time.Second, past{waits: 6, waitSince: noon.UnixMilli()}, time.Second},
		"no wait at all: the shortest":   {503, 0, past{waits: 6, waitSince: noon.UnixMilli()}, time.Second},
		"with an error that is retried":  {500, 30 * time.Second, past{}, 30 * time.Second},
		"nothing asked":                  {503, -1, past{waits: 6, waitSince: noon.UnixMilli()}, time.Minute},
		"on an attempt that a wait cost": {429, 30 * time.Second, past{waits: 9, waitSince: noon.UnixMilli()}, 30 * time.Second},
	} {
		v := verdictOn(t, happening{status: c.status, asked: c.asked >= 0, retryAfter: c.asked}, c.p, plainSpec())
		if v.delay != c.want {
			t.Errorf("%s: %s, want %s", name, v.delay, c.want)
		}
	}
}

func TestRetryOnAddsAndTakesAway(t *testing.T) {
	for name, c := range map[string]struct {
		rule tasks.RetryOn
		h    happening
		p    past
		want step
	}{
		"404 added":                 {"404", happening{status: 404}, past{}, stepRetry},
		"404 added, attempts up":    {"404", happening{status: 404}, past{attempts: 4}, stepRecord},
		"200 is never tried again":  {"200", happening{status: 200}, past{}, stepRecord},
		"500 taken away":            {"-500", happening{status: 500}, past{}, stepRecord},
		"429 taken away":            {"-429", happening{status: 429}, past{}, stepRecord},
		"reset taken away":          {"-reset", happening{class: "reset"}, past{}, stepRecord},
		"certificate added":         {"tls_certificate", happening{class: "tls_certificate"}, past{}, stepRetry},
		"NXDOMAIN added: in full":   {"dns_not_found", happening{class: "dns_not_found"}, past{attempts: 3}, stepRetry},
		"NXDOMAIN otherwise: twice": {"404", happening{class: "dns_not_found"}, past{attempts: 1}, stepRecord},
		"others stay as they are":   {"404", happening{status: 502}, past{}, stepRetry},
	} {
		spec := plainSpec()
		spec.RetryOn = c.rule
		if v := verdictOn(t, c.h, c.p, spec); v.step != c.want {
			t.Errorf("%s: step %d, want %d", name, v.step, c.want)
		}
	}
}

func TestARequestMayBringItsOwnRetries(t *testing.T) {
	for n, want := range map[int]step{0: stepRecord, 1: stepRetry} {
		r := &tasks.Request{Retries: &n}
		if v := decide(happening{status: 500}, past{}, r, plainSpec(), nil, noon, 0); v.step != want {
			t.Errorf("%d retries: step %d, want %d", n, v.step, want)
		}
	}
	none := plainSpec()
	none.Retries = 0
	if v := verdictOn(t, happening{class: "dns_not_found"}, past{}, none); v.step != stepRecord {
		t.Errorf("no retries, NXDOMAIN: step %d", v.step)
	}
	if v := verdictOn(t, happening{status: 429}, past{}, none); v.step != stepWait {
		t.Errorf("no retries, told to wait: step %d, want a free wait", v.step)
	}
}

func TestWhatWeGaveUpOurselvesUsesNothingUp(t *testing.T) {
	p := past{attempts: 3, waits: 2, waitSince: 1}
	if v := verdictOn(t, happening{class: string(fetch.Canceled), canceled: true}, p, plainSpec()); v.step != stepBack || v.past != p {
		t.Errorf("verdict %+v, want it back as it was", v)
	}
}

func TestWhatAsynqIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		failure bool // counts as a retry
		skip    bool // ends in the archive
		delay   time.Duration
	}{
		"an attempt":               {&retryError{text: "x", after: time.Second, counted: true}, true, false, time.Second},
		"a wait":                   {&retryError{text: "x", after: time.Minute}, false, false, time.Minute},
		"in line":                  {deferBatch(3*time.Second, "in line: %s", "h"), false, false, 3 * time.Second},
		"joined with another":      {errors.Join(deferBatch(time.Second, "x"), errors.New("y")), false, false, time.Second},
		"the last attempt":         {&archiveError{text: "x"}, true, true, unexpectedDelay},
		"the last attempt, within": {fmt.Errorf("z: %w", &archiveError{text: "x"}), true, true, unexpectedDelay},
		"a lost lease":             {asynq.ErrLeaseExpired, false, false, 0},
		"anything else":            {errors.New("redis: gone"), false, false, unexpectedDelay},
	} {
		if isFailure(c.err) != c.failure || errors.Is(c.err, asynq.SkipRetry) != c.skip || retryDelay(7, c.err, nil) != c.delay {
			t.Errorf("%s: failure %v, to the archive %v, after %s", name, isFailure(c.err), errors.Is(c.err, asynq.SkipRetry), retryDelay(7, c.err, nil))
		}
	}
	if got := (&archiveError{text: "http_500: the server answered 500"}).Error(); got != "http_500: the server answered 500" {
		t.Errorf("archived as %q", got)
	}
}

func TestHistoryIsPayloadPlusWhatAsynqCounted(t *testing.T) {
	carried := tasks.Batch{Carried: true, Attempts: 1, Waits: 2, WaitSince: 7, Requests: make([]tasks.Request, 1)}
	listed := tasks.Batch{Attempts: 1, Waits: 2, WaitSince: 7}
	for name, c := range map[string]struct {
		batch      tasks.Batch
		retried    int
		state      ledger.Delivery
		generation int
		want       past
	}{
		"a listed batch":         {listed, 5, ledger.Delivery{Waits: -1}, 0, past{1, 2, 7}},
		"carried, first time":    {carried, 0, ledger.Delivery{Waits: -1}, 0, past{1, 2, 7}},
		"carried, tried twice":   {carried, 2, ledger.Delivery{Waits: 0}, 0, past{3, 0, 0}},
		"carried, and it waited": {carried, 0, ledger.Delivery{Waits: 3, WaitSince: 9}, 0, past{1, 3, 9}},
		"replayed":               {carried, 4, ledger.Delivery{Base: 4, Waits: -1}, 1, past{}},
		"replayed, tried once":   {carried, 5, ledger.Delivery{Base: 4, Waits: 0}, 1, past{1, 0, 0}},
	} {
		d := &delivery{batch: &c.batch, retried: c.retried, state: c.state, generation: c.generation}
		if got := d.history(); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAnAttemptThatMovedALargeBodyOnDoesNotCount(t *testing.T) {
	h := happening{class: string(fetch.BodyCut), message: "m", moved: true}
	got := verdictOn(t, h, past{attempts: 4, waits: 3, waitSince: 5}, plainSpec())
	want := verdict{step: stepWait, delay: time.Second, past: past{attempts: 4}}
	if got.step != want.step || got.delay != want.delay || got.past != want.past {
		t.Errorf("verdict %+v, want %+v", got, want)
	}
	h.class = string(fetch.Decode)
	if got := verdictOn(t, h, past{}, plainSpec()); got.step != stepRecord {
		t.Errorf("verdict on what is never tried again: %+v", got)
	}
}
