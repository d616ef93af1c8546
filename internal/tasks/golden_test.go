package tasks

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// golden are the payloads of every version that was ever written, with what they mean. A file is never changed: a
// fleet whose members have different versions shares one Redis. A new version adds files of its own.
var golden = []struct {
	file string
	want Batch
}{
	{"batch_v1_list.json", Batch{V: 1, Job: "news-2026.11", Host: "example.org", Requests: []Request{
		{URL: "http://example.org/"}, {URL: "http://example.org/a?b=1&c=<2>"}, {URL: "http://example.org/%C3%A4"},
	}}},
	{"batch_v1_carried.json", Batch{V: 1, Job: "news-2026.11", Host: "example.org:8080",
		Requests: []Request{{URL: "http://example.org:8080/slow"}}, Carried: true, Attempts: 2, Generation: 1, Waits: 3,
		WaitSince: 1795168800123, LastError: `http_503: the server answered "503"`}},
	{"batch_v1_full.json", Batch{V: 1, Job: "j", Host: "b.example", Attempts: 1, Requests: []Request{
		{URL: "https://b.example/target", Method: "PUT", Header: Header{"Accept": {"text/html", "*/*"}, "X-One": {"1"}},
			Body: []byte{0, 1, 2, 255}, Key: "k 1", Meta: json.RawMessage(`{"note":"<kept & as it was>","n":1.50}`),
			Retries: new(int), Timeout: Duration(90 * time.Second), ID: "351ca8f9526564e5e63a269a8e42c73a",
			Origin: "http://a.example/", OriginMethod: "POST", Redirects: []Hop{{URL: "http://a.example/", Status: 307}}},
		{URL: "https://b.example/upload", Method: "POST", BodyKey: "c6fec445172aef5d71aba8c779818e70",
			ID: "c6fec445172aef5d71aba8c779818e70"},
	}}},
	{"batch_v1_limits.json", Batch{V: 1, Job: "j", Host: "example.org", Requests: []Request{
		{URL: "http://example.org/a", Timeout: Duration(time.Second), RequestLimits: RequestLimits{MaxTime: Duration(time.Minute),
			ConnectTimeout: Duration(2 * time.Second), TLSTimeout: Duration(3 * time.Second), IdleTimeout: Duration(4 * time.Second)}},
		{URL: "http://example.org/b", RequestLimits: RequestLimits{IdleTimeout: Duration(time.Second)}},
	}}},
	{"batch_v1_since.json", Batch{V: 1, Job: "news-2", Host: "example.org", Requests: []Request{
		{URL: "http://example.org/a", Since: &Since{ETag: `W/"<1>"`, LastModified: "Fri, 20 Nov 2026 09:30:12 GMT",
			FetchedAt: time.Date(2026, 11, 20, 9, 30, 12, 345_000_000, time.UTC), Body: "bodies/2c/2cf24d.html", Bytes: 5,
			SHA256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", ContentType: "text/html; charset=utf-8"}},
		{URL: "http://example.org/b", Method: "HEAD", Since: &Since{URL: "http://www.example.org/b", ETag: `"2"`, BodyJob: "news-0"}},
	}}},
}

func readGolden(t testing.TB, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(data)
}

func TestEveryPayloadEverWrittenIsRead(t *testing.T) {
	for _, g := range golden {
		t.Run(g.file, func(t *testing.T) {
			got, err := ParseBatch("batch", readGolden(t, g.file))
			if err != nil {
				t.Fatal(err)
			}
			g.want.ID = "batch"
			if diff := cmp.Diff(&g.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPayloadsOfTheNewestVersionAreWrittenByteForByte(t *testing.T) {
	for _, g := range golden {
		if g.want.V != BatchVersion {
			continue
		}
		t.Run(g.file, func(t *testing.T) {
			got, err := g.want.Payload()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(readGolden(t, g.file)), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryGoldenFileIsTested(t *testing.T) {
	files, err := filepath.Glob("testdata/batch_*.json")
	if err != nil || len(files) != len(golden) {
		t.Errorf("%d files (%v), %d in the table", len(files), err, len(golden))
	}
}

var specV1 = Spec{
	V: 1, Queue: "low", HostRate: 0.5, HostBurst: 2, HostConns: 3, Retries: 7,
	Backoff: Backoff{Base: Duration(2 * time.Second), Factor: 1.5, Cap: Duration(time.Minute), Jitter: "equal"},
	RetryOn: "404,-500", Patience: Duration(time.Hour), Timeout: Duration(10 * time.Second), MaxTime: Duration(5 * time.Minute),
	MaxBody: 1 << 20, Method: "POST", Header: Header{"Accept": {"text/html"}, "X-Two": {"1", "2"}}, Data: []byte("a=1"),
	Robots: "ignore", UserAgent: "bot/1", NoDedupe: true,
}

// specV1Since is a spec as it is since jobs may refer to earlier ones: the same version, with fields that may be missing.
func specV1Since() Spec {
	s := specV1
	s.Since, s.SinceStore = "news-2026.11", "5b2c1c7cf3f1f7d2a1e8"
	return s
}

// specV2 uses the first topics of version 2.
func specV2() Spec {
	s := specV1
	s.V = 2
	s.Limits = Limits{
		ConnectTimeout: Duration(2 * time.Second), TLSTimeout: Duration(3 * time.Second), IdleTimeout: Duration(4 * time.Second),
		MethodTimeouts: map[string]Duration{"GET": Duration(time.Second), "POST": Duration(time.Minute)},
		MinSpeed:       1000, MinSpeedTime: Duration(5 * time.Second), MaxRatio: NoMaxRatio, MaxRedirects: new(int), MaxURL: 2000,
	}
	s.Wants = Wants{Accept: "text/html,image/*", Range: "0-1023"}
	return s
}

func TestEverySpecEverWrittenIsRead(t *testing.T) {
	for file, want := range map[string]Spec{"spec_v1.json": specV1, "spec_v1_since.json": specV1Since(), "spec_v2_limits.json": specV2()} {
		data := readGolden(t, file)
		got, err := ParseSpec(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
		if written, err := json.Marshal(want); err != nil || !bytes.Equal(written, data) {
			t.Errorf("%s is written as\n%s (%v), want\n%s", file, written, err, data)
		}
	}
}

func TestSpecFieldsLeftOutHaveTheirDefaults(t *testing.T) {
	got, err := ParseSpec([]byte(`{"v":1,"retries":9,"later_field":true}`))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultSpec()
	want.Retries = 9
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSpecOfANewerVersionIsRefusedAsSuch(t *testing.T) {
	_, err := ParseSpec([]byte(`{"v":3,"retries":"as a word"}`))
	newer, ok := errors.AsType[*NewerSpecError](err)
	if !ok || newer.Version != 3 {
		t.Fatalf("error = %v, want a NewerSpecError of version 3", err)
	}
}

func TestSpecsThatSayNothingNewAreLeftToEveryWorker(t *testing.T) {
	for claim, s := range map[string]Spec{"the default": DefaultSpec(), "all of version 1": specV1, "with since": specV1Since()} {
		if got := s.Version(); got != 1 {
			t.Errorf("%s: version %d, want 1", claim, got)
		}
	}
}
