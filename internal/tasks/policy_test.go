package tasks

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestBackoffIsReadAsPeopleWriteIt(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want Backoff // zero = refused
	}{
		"all parts":         {"base=2s,factor=1.5,cap=1m,jitter=none", Backoff{Duration(2 * time.Second), 1.5, Duration(time.Minute), "none"}},
		"spaces":            {" base=2s , cap=1m ", Backoff{Duration(2 * time.Second), 2, Duration(time.Minute), "full"}},
		"one part":          {"jitter=equal", Backoff{Duration(time.Second), 2, Duration(5 * time.Minute), "equal"}},
		"constant":          {"base=1m,factor=1,cap=1m", Backoff{Duration(time.Minute), 1, Duration(time.Minute), "full"}},
		"empty":             {"", Backoff{}},
		"no value":          {"base", Backoff{}},
		"unknown part":      {"bases=1s", Backoff{}},
		"no unit":           {"base=1", Backoff{}},
		"zero base":         {"base=0s", Backoff{}},
		"negative base":     {"base=-1s", Backoff{}},
		"cap below base":    {"base=10m", Backoff{}},
		"shrinking":         {"factor=0.5", Backoff{}},
		"factor no number":  {"factor=two", Backoff{}},
		"factor NaN":        {"factor=NaN", Backoff{}},
		"factor infinite":   {"factor=Inf", Backoff{}},
		"unknown jitter":    {"jitter=half", Backoff{}},
		"duration overflow": {"cap=9999999h", Backoff{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseBackoff(c.in)
			if refused := c.want == (Backoff{}); (err != nil) != refused {
				t.Fatalf("got %v, %v", got, err)
			} else if !refused && got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), "backoff") {
				t.Errorf("error does not name the flag: %v", err)
			}
		})
	}
}

func TestBackoffReadsAsItIsWritten(t *testing.T) {
	b := Backoff{Base: Duration(1500 * time.Millisecond), Factor: 1.25, Cap: Duration(2 * time.Hour), Jitter: "equal"}
	if got, err := ParseBackoff(b.String()); err != nil || got != b {
		t.Errorf("%s reads as %v, %v", b, got, err)
	}
}

func TestBackoffDelays(t *testing.T) {
	b := Backoff{Base: Duration(time.Second), Factor: 2, Cap: Duration(time.Minute), Jitter: "none"}
	century := Backoff{Base: Duration(time.Hour), Factor: 1000, Cap: Duration(math.MaxInt64), Jitter: "none"}
	with := func(jitter string) Backoff { b := b; b.Jitter = jitter; return b }
	for name, c := range map[string]struct {
		b      Backoff
		n      int
		random float64
		want   time.Duration
	}{
		"first":                         {b, 1, 0, time.Second},
		"second":                        {b, 2, 0, 2 * time.Second},
		"sixth":                         {b, 6, 0, 32 * time.Second},
		"seventh is capped":             {b, 7, 0, time.Minute},
		"power overflows":               {b, 100_000, 0, time.Minute},
		"number of nanoseconds is full": {century, 50, 0, math.MaxInt64},
		"zeroth counts as first":        {b, 0, 0, time.Second},
		"full at its least":             {with("full"), 3, 0, 0},
		"full in the middle":            {with("full"), 3, 0.5, 2 * time.Second},
		"equal at its least":            {with("equal"), 3, 0, 2 * time.Second},
		"equal in the middle":           {with("equal"), 3, 0.5, 3 * time.Second},
	} {
		if got := c.b.Delay(c.n, c.random); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestBackoffStaysWithinItsJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jitter := rapid.SampledFrom([]string{"full", "equal", "none"}).Draw(t, "jitter")
		b := Backoff{Base: Duration(rapid.Int64Range(1, 1e12).Draw(t, "base")), Factor: rapid.Float64Range(1, 1e6).Draw(t, "factor"), Jitter: jitter}
		b.Cap = b.Base + Duration(rapid.Int64Range(0, 1e15).Draw(t, "cap"))
		n := rapid.IntRange(1, 2000).Draw(t, "n")
		got := b.Delay(n, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "random"))
		plain := b
		plain.Jitter = "none"
		whole := plain.Delay(n, 0)
		low := map[string]time.Duration{"full": 0, "equal": whole/2 - 1, "none": whole}[jitter]
		if got < low || got > whole || got > time.Duration(b.Cap) {
			t.Fatalf("%s, wait %d: %s, want %s to %s", b, n, got, low, whole)
		}
	})
}

func TestRetryOn(t *testing.T) {
	for name, c := range map[string]struct {
		in   RetryOn
		want RetryRule // nil = refused
	}{
		"nothing":            {"", RetryRule{}},
		"adds":               {"404,+410,tls", RetryRule{"404": true, "410": true, "tls": true}},
		"takes away":         {"-500,-reset", RetryRule{"500": false, "reset": false}},
		"spaces":             {" 404 , - 500", RetryRule{"404": true, "500": false}},
		"zeros in front":     {"0404", RetryRule{"404": true}},
		"the last word wins": {"404,-404", RetryRule{"404": false}},
		"empty entry":        {"404,,500", nil},
		"only a sign":        {"-", nil},
		"no status":          {"99", nil},
		"beyond the last":    {"600", nil},
	} {
		got, err := c.in.Compile()
		if (err != nil) != (c.want == nil) {
			t.Errorf("%s: %v, %v", name, got, err)
		} else if diff := cmp.Diff(c.want, got); err == nil && diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestSpecDifferenceNamesFlags(t *testing.T) {
	stored, other := DefaultSpec(), DefaultSpec()
	other.HostRate, other.Retries, other.Header = 1, 9, Header{"A": {"1"}}
	for name, c := range map[string]struct {
		given []string
		want  []string
	}{
		"all": {nil, []string{"--header (the job has none, not {\"A\":\"1\"})", "--host-rate (the job has 5, not 1)",
			"--retries (the job has 4, not 9)"}},
		"only those given": {[]string{"--retries", "--queue"}, []string{"--retries (the job has 4, not 9)"}},
		"none given":       {[]string{}, nil},
	} {
		got := other.Difference(stored, c.given)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// version2 sets each field that came with version 2.
var version2 = map[string]func(*Spec){
	"--connect-timeout": func(s *Spec) { s.ConnectTimeout = 1 }, "--tls-timeout": func(s *Spec) { s.TLSTimeout = 1 },
	"--idle-timeout": func(s *Spec) { s.IdleTimeout = 1 }, "--min-speed": func(s *Spec) { s.MinSpeed = 1 },
	"--method-timeout": func(s *Spec) { s.MethodTimeouts = map[string]Duration{"POST": 1} },
	"--min-speed-time": func(s *Spec) { s.MinSpeedTime = 1 }, "--max-ratio": func(s *Spec) { s.MaxRatio = NoMaxRatio },
	"--max-redirects": func(s *Spec) { s.MaxRedirects = new(int) }, "--max-url": func(s *Spec) { s.MaxURL = 1 },
	"--http": func(s *Spec) { s.HTTP = "2" }, "--insecure": func(s *Spec) { s.Insecure = true },
	"--accept": func(s *Spec) { s.Accept = "text/html" }, "--range": func(s *Spec) { s.Range = "0-1" },
}

// A field that Difference does not look at would let two policies share a job.
func TestSpecDifferenceSeesEveryField(t *testing.T) {
	change := map[string]func(*Spec){
		"--queue":     func(s *Spec) { s.Queue = "low" },
		"--host-rate": func(s *Spec) { s.HostRate = 0 }, "--host-burst": func(s *Spec) { s.HostBurst = 2 },
		"--host-conns": func(s *Spec) { s.HostConns = 1 }, "--retries": func(s *Spec) { s.Retries = 0 },
		"--backoff": func(s *Spec) { s.Backoff.Jitter = "none" }, "--retry-on": func(s *Spec) { s.RetryOn = "404" },
		"--patience": func(s *Spec) { s.Patience++ }, "--timeout": func(s *Spec) { s.Timeout++ },
		"--max-time": func(s *Spec) { s.MaxTime++ }, "--max-body": func(s *Spec) { s.MaxBody++ },
		"--method": func(s *Spec) { s.Method = "HEAD" }, "--header": func(s *Spec) { s.Header = Header{"A": {"1"}} },
		"--data": func(s *Spec) { s.Data = []byte("x") }, "--robots": func(s *Spec) { s.Robots = "ignore" },
		"--user-agent": func(s *Spec) { s.UserAgent = "x" }, "--no-dedupe": func(s *Spec) { s.NoDedupe = true },
		"--resume-above": func(s *Spec) { s.ResumeAbove = ResumeNever },
		"--since":        func(s *Spec) { s.Since = "a" },
	}
	maps.Copy(change, version2)
	maps.Copy(change, authChanges)
	if got, want := len(change), len(DefaultSpec().fields()); got != want {
		t.Errorf("%d fields changed here, %d compared", got, want)
	}
	for flag, f := range change {
		s := DefaultSpec()
		f(&s)
		got := s.Difference(DefaultSpec(), nil)
		if len(got) != 1 || !strings.HasPrefix(got[0], flag+" (") {
			t.Errorf("%s: %q", flag, got)
		}
	}
}

// A worker of version 1 would fetch without what these fields ask for.
func TestFieldsOfVersion2MakeASpecOfVersion2(t *testing.T) {
	changes := maps.Clone(version2)
	maps.Copy(changes, authChanges)
	for flag, f := range changes {
		s := DefaultSpec()
		if f(&s); s.Version() != 2 {
			t.Errorf("%s: version %d", flag, s.Version())
		}
	}
	there := 0
	for _, topic := range (&Spec{}).topics() {
		there += len(topic.fields())
	}
	if len(changes) != there {
		t.Errorf("%d fields set here, there are %d", len(changes), there)
	}
}

func TestSpecsThatCannotBeAreRefusedByFlag(t *testing.T) {
	if err := DefaultSpec().Validate(); err != nil {
		t.Fatal(err)
	}
	for flag, change := range map[string][]func(*Spec){
		"--queue": {func(s *Spec) { s.Queue = "urgent" }},
		"--since": {func(s *Spec) { s.Since = "../a" }},
		"--host-rate": {func(s *Spec) { s.HostRate = -1 }, func(s *Spec) { s.HostRate = math.NaN() }, func(s *Spec) { s.HostRate = math.Inf(1) },
			func(s *Spec) { s.HostRate = 1e-9 }, func(s *Spec) { s.HostRate = 1e9 }},
		"--host-burst": {func(s *Spec) { s.HostBurst = 0 }},
		"--host-conns": {func(s *Spec) { s.HostConns = -1 }},
		"--retries":    {func(s *Spec) { s.Retries = -1 }, func(s *Spec) { s.Retries = 1001 }},
		"--patience":   {func(s *Spec) { s.Patience = 0 }},
		"--timeout":    {func(s *Spec) { s.Timeout = -1 }},
		"--max-time":   {func(s *Spec) { s.MaxTime = 0 }},
		"--max-body":   {func(s *Spec) { s.MaxBody = 0 }},
		"--robots":     {func(s *Spec) { s.Robots = "maybe" }},
		"--retry-on":   {func(s *Spec) { s.RetryOn = "1000" }},
		"backoff":      {func(s *Spec) { s.Backoff.Factor = 0 }},

		"--method": {func(s *Spec) { s.Method = "GE T" }, func(s *Spec) { s.Method = "" }, func(s *Spec) { s.Method = "CONNECT" },
			func(s *Spec) { s.Method = "GET / HTTP/1.1\r\nA:" }},
		"--user-agent": {func(s *Spec) { s.UserAgent = "a\r\nB: c" }},
		"--header": {func(s *Spec) { s.Header = Header{"A\r\nB": {"c"}} }, func(s *Spec) { s.Header = Header{"A": {"b", "c\nD: e"}} },
			func(s *Spec) { s.Header = Header{"A": {"b\x00"}} }},
		"--connect-timeout": {func(s *Spec) { s.ConnectTimeout = -1 }, func(s *Spec) { s.ConnectTimeout = 1 }},
		"--tls-timeout":     {func(s *Spec) { s.TLSTimeout = -1 }},
		"--idle-timeout":    {func(s *Spec) { s.IdleTimeout = -1 }},
		"--method-timeout": {func(s *Spec) { s.MethodTimeouts = map[string]Duration{"POST": 0} },
			func(s *Spec) { s.MethodTimeouts = map[string]Duration{"a b": Duration(time.Second)} }},
		"--min-speed":      {func(s *Spec) { s.MinSpeed = -1 }},
		"--min-speed-time": {func(s *Spec) { s.MinSpeedTime = -1 }},
		"--max-ratio":      {func(s *Spec) { s.MaxRatio = -2 }},
		"--max-redirects":  {func(s *Spec) { s.MaxRedirects = new(-1) }, func(s *Spec) { s.MaxRedirects = new(101) }},
		"--max-url":        {func(s *Spec) { s.MaxURL = -1 }, func(s *Spec) { s.MaxURL = MaxURLLength + 1 }},
		"--accept":         {func(s *Spec) { s.Accept = "html" }},
		"--range":          {func(s *Spec) { s.Range = "5-1" }},
	} {
		for _, f := range change {
			s := DefaultSpec()
			f(&s)
			if err := s.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("%s: %v", flag, err)
			}
		}
	}
}

func TestQueuesAreListedMostUrgentFirst(t *testing.T) {
	if !slices.Equal(Queues, []string{"critical", "default", "low"}) {
		t.Errorf("queues = %v", Queues)
	}
}
