package fetch

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/fetchfleet/fetchfleet/internal/fetch/discover"
)

// zone is a name server whose records a test may change.
type zone struct {
	mu    sync.Mutex
	addrs map[string][]string // "a.test" → addresses
	srv   map[string][]dnsmessage.SRVResource
	ttl   uint32
	asked atomic.Int64
}

func (z *zone) set(host string, addrs ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[host] = addrs
}

func (z *zone) serve(name string, records ...dnsmessage.SRVResource) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.srv[name] = records
}

func (z *zone) shorten(ttl uint32) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.ttl = ttl
}

func newZone(t *testing.T) (*zone, *net.Resolver) {
	t.Helper()
	z := &zone{addrs: map[string][]string{}, srv: map[string][]dnsmessage.SRVResource{}, ttl: 60}
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(z.answer(buf[:n]), from)
		}
	})
	t.Cleanup(func() {
		pc.Close()
		done.Wait()
	})
	return z, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", pc.LocalAddr().String())
	}}
}

func (z *zone) answer(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: z.ttl}
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: body})
	}
	if q.Type == dnsmessage.TypeA {
		z.asked.Add(1)
	}
	for _, text := range z.addrs[name] {
		switch addr := netip.MustParseAddr(text); {
		case q.Type == dnsmessage.TypeA && addr.Is4():
			add(&dnsmessage.AResource{A: addr.As4()})
		case q.Type == dnsmessage.TypeAAAA && addr.Is6():
			add(&dnsmessage.AAAAResource{AAAA: addr.As16()})
		}
	}
	if q.Type == dnsmessage.TypeSRV {
		for _, r := range z.srv[name] {
			add(&r)
		}
	}
	reply, _ := m.Pack()
	return reply
}

// servers start a server on each address, all on one port, which say where they are; addresses in dead get no server.
func servers(t *testing.T, addrs ...string) (port string) {
	t.Helper()
	for range 20 {
		if port, ok := tryServers(t, addrs); ok {
			return port
		}
	}
	t.Fatal("no port is free on all addresses")
	return ""
}

func tryServers(t *testing.T, addrs []string) (port string, ok bool) {
	_, port, _ = net.SplitHostPort(freePort(t))
	var listeners []net.Listener
	for _, addr := range addrs {
		l, err := net.Listen("tcp", net.JoinHostPort(addr, port))
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return "", false
		}
		listeners = append(listeners, l)
	}
	for i, l := range listeners {
		s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintf(w, "%s %s from %s", addrs[i], r.Host, host)
		})}}
		s.Start()
		t.Cleanup(s.Close)
	}
	return port, true
}

// loopback6 skips the test where there is no IPv6.
func loopback6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip(err)
	}
	l.Close()
}

func TestANameThatTurnsPrivateIsRefusedTheSecondTime(t *testing.T) {
	z, r := newZone(t)
	port := servers(t, "127.0.0.1")
	z.shorten(0)
	z.set("rebound.test", "127.0.0.1")
	f := newFetcher(t, Options{Resolver: r, AllowPrivate: mustPrefixes("127.0.0.1/32")}) // stands for a public address
	url := "http://rebound.test:" + port + "/"
	if _, _, err := fetch(f, &Request{URL: url}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	z.set("rebound.test", "127.0.0.2")
	_, _, err := fetch(f, &Request{URL: url})
	wantClass(t, err, AddressRefused)
}

func TestANameIsForgottenWhenNoneOfItsAddressesCanBeReached(t *testing.T) {
	z, r := newZone(t)
	port := servers(t, "127.0.0.2")
	z.set("moved.test", "127.0.0.3", "127.0.0.4")
	f := newFetcher(t, Options{Resolver: r})
	url := "http://moved.test:" + port + "/"
	_, _, err := fetch(f, &Request{URL: url})
	wantClass(t, err, ConnectRefused)
	z.set("moved.test", "127.0.0.2")
	if _, body, err := fetch(f, &Request{URL: url}); err != nil || !strings.HasPrefix(string(body), "127.0.0.2 moved.test") {
		t.Errorf("%s, %v", body, err)
	}
	f.Close()
	if _, _, err := fetch(f, &Request{URL: url}); err != nil || z.asked.Load() != 2 {
		t.Errorf("%v, asked %d times, want 2: the third connection needs no look-up", err, z.asked.Load())
	}
	if s := f.Stats(); s.DNSHits != 1 || s.DNSMisses != 2 || s.DialsFailed != 1 || s.Opened != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestFamiliesAreThoseThatAreWanted(t *testing.T) {
	loopback6(t)
	z, r := newZone(t)
	port := servers(t, "127.0.0.1", "::1")
	z.set("both.test", "127.0.0.1", "::1")
	z.set("four.test", "127.0.0.1")
	for family, want := range map[Family]string{Family4: "127.0.0.1", Family6: "::1", FamilyPrefer4: "127.0.0.1", FamilyPrefer6: "::1"} {
		o := Options{Resolver: r}
		o.Family = family
		f := newFetcher(t, o)
		_, body, err := fetch(f, &Request{URL: "http://both.test:" + port})
		if got, _, _ := strings.Cut(string(body), " "); got != want || err != nil {
			t.Errorf("--ip %s: %s, %v", family, body, err)
		}
		_, _, err = fetch(f, &Request{URL: "http://four.test:" + port})
		if family == Family6 {
			wantClass(t, err, ConnectUnreachable)
		} else if err != nil {
			t.Errorf("--ip %s, a host with IPv4 alone: %v", family, err)
		}
	}
}

func TestTheOtherFamilyIsTriedWhenOneDoesNotAnswer(t *testing.T) {
	loopback6(t)
	z, r := newZone(t)
	port := servers(t, "127.0.0.1")
	z.set("half.test", "::1", "127.0.0.1")
	f := newFetcher(t, Options{Resolver: r})
	if _, body, err := fetch(f, &Request{URL: "http://half.test:" + port}); err != nil || !strings.HasPrefix(string(body), "127.0.0.1") {
		t.Errorf("%s, %v", body, err)
	}
}

func TestConnectionsComeFromTheSourcesInTurn(t *testing.T) {
	loopback6(t)
	z, r := newZone(t)
	port := servers(t, "127.0.0.1", "::1")
	z.set("both.test", "127.0.0.1", "::1")
	o := Options{Resolver: r}
	o.Sources = []netip.Addr{netip.MustParseAddr("127.0.0.7"), netip.MustParseAddr("127.0.0.8")}
	f := newFetcher(t, o)
	seen := map[string]int{}
	for range 4 {
		_, body, err := fetch(f, &Request{URL: "http://both.test:" + port})
		if err != nil {
			t.Fatal(err)
		}
		_, from, _ := strings.Cut(string(body), "from ")
		seen[from]++
		f.Close()
	}
	if diff := cmp.Diff(map[string]int{"127.0.0.7": 2, "127.0.0.8": 2}, seen); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	_, _, err := fetch(f, &Request{URL: "http://[::1]:" + port})
	wantClass(t, err, ConnectUnreachable)
}

func resolveRules(t *testing.T, texts ...string) (rules []discover.Rule) {
	t.Helper()
	for _, text := range texts {
		rule, err := discover.ParseResolve(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	return rules
}

func TestResolvedHostsAreBalancedOverWhoAnswers(t *testing.T) {
	port := servers(t, "127.0.0.2", "127.0.0.3")
	o := Options{}
	o.Servers = resolveRules(t, "api.test=127.0.0.2,127.0.0.3,127.0.0.4")
	f := newFetcher(t, o)
	seen := map[string]int{}
	for range 8 {
		_, body, err := fetch(f, &Request{URL: "http://api.test:" + port})
		if err != nil {
			t.Fatal(err)
		}
		text := string(body)
		if !strings.Contains(text, " api.test:"+port+" ") {
			t.Fatalf("the Host is not that of the URL: %s", text)
		}
		server, _, _ := strings.Cut(text, " ")
		seen[server]++
		f.Close()
	}
	if seen["127.0.0.2"] < 3 || seen["127.0.0.3"] < 3 {
		t.Errorf("8 connections went to %v", seen)
	}
	o.Servers = resolveRules(t, "api.test=10.0.0.1")
	_, _, err := fetch(newFetcher(t, o), &Request{URL: "http://api.test:" + port})
	wantClass(t, err, AddressRefused)
}

func TestTheNameInTheCertificateIsThatOfTheURL(t *testing.T) {
	s := newTallied(t, protocols["HTTP/2"])
	o := Options{TLSConfig: &tls.Config{RootCAs: pool(s)}}
	o.Servers = resolveRules(t, "example.com="+s.host(), "wrong.test="+s.host()) // httptest's certificate is example.com's
	f := newFetcher(t, o)
	for range 2 {
		if _, _, err := fetch(f, &Request{URL: "https://example.com/"}); err != nil {
			t.Fatal(err)
		}
		for closed := false; !closed; { // net/http may still be ending the stream of an answer that is read
			f.Close()
			select {
			case <-s.closed:
				closed = true
			case <-time.After(10 * time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("the connection stays open")
			}
		}
	}
	_, _, err := fetch(f, &Request{URL: "https://wrong.test/"})
	wantClass(t, err, TLSCertificate)
	if st := f.Stats(); st.Handshakes != 1 || st.Resumed != 1 {
		t.Errorf("%d full and %d resumed handshakes, want one of each", st.Handshakes, st.Resumed)
	}
}

func TestServiceRecordsSayWhereTheServersAre(t *testing.T) {
	z, r := newZone(t)
	port := servers(t, "127.0.0.2", "127.0.0.3")
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	z.set("two.test", "127.0.0.2")
	z.set("three.test", "127.0.0.3")
	z.set("dead.test", "127.0.0.4")
	record := func(priority uint16, target string) dnsmessage.SRVResource {
		return dnsmessage.SRVResource{Priority: priority, Weight: 1, Port: uint16(n), Target: dnsmessage.MustNewName(target)}
	}
	z.serve("_http._tcp.web.test", record(1, "dead.test."), record(2, "two.test."), record(3, "three.test."))
	rule, err := discover.ParseDiscover("web.test=srv:_http._tcp.web.test")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Resolver: r}
	o.Servers = []discover.Rule{rule}
	f := newFetcher(t, o)
	_, body, err := fetch(f, &Request{URL: "http://web.test/"})
	if err != nil || !strings.HasPrefix(string(body), "127.0.0.2 web.test ") {
		t.Errorf("%s, %v: want the server of the lowest priority that answers", body, err)
	}
	f = newFetcher(t, Options{Resolver: r, AllowPrivate: mustPrefixes("192.0.2.0/24"), Connections: Connections{Servers: []discover.Rule{rule}}})
	_, _, err = fetch(f, &Request{URL: "http://web.test/"})
	wantClass(t, err, AddressRefused)
}

// newConsul is a Consul whose service web has one instance for ever.
func newConsul(t *testing.T, addr, port string) (rule discover.Rule, asked *atomic.Int64) {
	t.Helper()
	asked = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.URL.Query().Get("index") == "7" { // nothing changes
			<-r.Context().Done()
			return
		}
		w.Header().Set("X-Consul-Index", "7")
		fmt.Fprintf(w, `[{"Node":{"Address":%q},"Service":{"Port":%s,"Weights":{"Passing":1}}}]`, addr, port)
	}))
	t.Cleanup(s.Close)
	rule, err := discover.ParseDiscover("web.test=consul:" + s.URL + "/web")
	if err != nil {
		t.Fatal(err)
	}
	return rule, asked
}

func TestConsulIsAskedThroughTheDialGuard(t *testing.T) {
	port := servers(t, "127.0.0.2")
	rule, _ := newConsul(t, "127.0.0.2", port)
	f := newFetcher(t, Options{Connections: Connections{Servers: []discover.Rule{rule}}})
	_, body, err := fetch(f, &Request{URL: "http://web.test/"})
	if err != nil || !strings.HasPrefix(string(body), "127.0.0.2 web.test ") {
		t.Errorf("%s, %v", body, err)
	}
	f.Close()

	rule, asked := newConsul(t, "127.0.0.2", port)
	f = newFetcher(t, Options{AllowPrivate: mustPrefixes("127.0.0.2/32"), Connections: Connections{Servers: []discover.Rule{rule}}})
	_, _, err = fetch(f, &Request{URL: "http://web.test/"})
	wantClass(t, err, AddressRefused)
	if !strings.Contains(err.Error(), "ask Consul at "+rule.Base.Host) || asked.Load() != 0 {
		t.Errorf("%v: want Consul's own address to be refused", err)
	}
}
