package cli

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
)

func parsed(t *testing.T, args ...string) *workerCommand {
	t.Helper()
	c := &workerCommand{}
	if _, err := parserOf(t, "worker", c).Parse(append(args, "--store=s")); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConnectionFlagsBecomeOptions(t *testing.T) {
	got, err := parsed(t).connections()
	if err != nil {
		t.Fatal(err)
	}
	want := fetch.Connections{DNSTTL: 5 * time.Minute, Family: fetch.FamilyAuto, KeepAlive: 15 * time.Second, PingInterval: 30 * time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("without flags (-want +got):\n%s", diff)
	}
	got, err = parsed(t, "--dns-ttl=0s", "--ip=prefer-4", "--source-address=192.0.2.1,::1", "--max-conns=5", "--max-conns-per-host=4", "--max-waiting=3",
		"--conn-lifetime=2m", "--tcp-keepalive=0s", "--http2-ping=1m", "--resolve=a.test=::1", "--discover=b.test=srv:c.test d.test=srv:e.test", "--proxy=socks5://h").connections()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Servers) != 3 || got.Proxies == nil {
		t.Errorf("%d servers, proxies %v", len(got.Servers), got.Proxies)
	}
	got.Servers, got.Proxies = nil, nil
	want = fetch.Connections{DNSTTL: -1, Family: fetch.FamilyPrefer4, Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")},
		MaxConns: 5, MaxConnsPerHost: 4, MaxWaiting: 3, ConnLifetime: 2 * time.Minute, KeepAlive: -1, PingInterval: time.Minute}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("with all of them (-want +got):\n%s", diff)
	}
}

func TestReferencesOfTheOperatorAreResolved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PROXY_USER", "ann")
	for ref, want := range map[string]string{"env:PROXY_USER": "ann", "file:" + path: "s3cret"} {
		if got, err := reference(ref); got != want || err != nil {
			t.Errorf("%s: %q, %v", ref, got, err)
		}
	}
	for _, ref := range []string{"env:NOT_THERE_AT_ALL", "file:" + path + ".not"} {
		if _, err := reference(ref); err == nil {
			t.Errorf("%s is resolved", ref)
		}
	}
}
