package discover

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
)

func server(host string, port uint16) balance.Endpoint {
	return balance.Endpoint{Host: host, Port: port, Weight: 1}
}

func TestRulesAreRead(t *testing.T) {
	for text, want := range map[string]Rule{
		"A.test=192.0.2.1":                  {Host: "a.test", Kind: Fixed, Servers: []balance.Endpoint{server("192.0.2.1", 0)}},
		"a.test:8443=192.0.2.1, [::1]:80":   {Host: "a.test", Port: 8443, Kind: Fixed, Servers: []balance.Endpoint{server("192.0.2.1", 0), server("::1", 80)}},
		"bücher.test=::1,127.0.0.1:99":      {Host: "xn--bcher-kva.test", Kind: Fixed, Servers: []balance.Endpoint{server("::1", 0), server("127.0.0.1", 99)}},
		"[2001:db8::1]:80=::ffff:127.0.0.1": {Host: "2001:db8::1", Port: 80, Kind: Fixed, Servers: []balance.Endpoint{server("127.0.0.1", 0)}},
	} {
		got, err := ParseResolve(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: error %v, -want +got:\n%s", text, err, diff)
		}
	}
	for text, want := range map[string]Rule{
		"a.test=srv:_http._tcp.a.test":                  {Host: "a.test", Kind: SRV, Name: "_http._tcp.a.test"},
		"my_api=consul:http://127.0.0.1:8500/web":       {Host: "my_api", Kind: Consul, Service: "web", Base: &url.URL{Scheme: "http", Host: "127.0.0.1:8500"}},
		"a.test:80=consul:https://c.test/prefix/we%2Fb": {Host: "a.test", Port: 80, Kind: Consul, Service: "b", Base: &url.URL{Scheme: "https", Host: "c.test", Path: "/prefix/we"}},
	} {
		got, err := ParseDiscover(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: error %v, -want +got:\n%s", text, err, diff)
		}
	}
}

func TestWhatIsNoRuleIsRefused(t *testing.T) {
	for _, text := range []string{"", "a.test", "a.test=", "=192.0.2.1", "a.test=b.test", "a.test=192.0.2.1,", "a.test:0=192.0.2.1", "a.test:x=192.0.2.1",
		"a/b=192.0.2.1", "a b=192.0.2.1", "a.test=192.0.2.1:70000", "[::1=192.0.2.1", "a.test=[::1]x"} {
		if rule, err := ParseResolve(text); err == nil {
			t.Errorf("%q is taken as %+v", text, rule)
		}
	}
	for _, text := range []string{"a.test=http://x", "a.test=srv:", "a.test=srv:a..b", "a.test=srv:" + strings.Repeat("a.", 150), "a.test=srv:a b", "a.test=consul:127.0.0.1/x",
		"a.test=consul:http://127.0.0.1", "a.test=consul:http://127.0.0.1/", "a.test=consul:http://u:p@127.0.0.1/x", "a.test=consul:http://127.0.0.1/x?token=1", "a.test=consul:ftp://127.0.0.1/x"} {
		if rule, err := ParseDiscover(text); err == nil {
			t.Errorf("%q is taken as %+v", text, rule)
		} else if strings.Contains(err.Error(), "token=1") || strings.Contains(err.Error(), "u:p") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a.test:8443=192.0.2.1,[::1]:80", "a=srv:_http._tcp.a", "a=consul:http://h:1/p/s", "[::1]=1.1.1.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if rule, err := ParseResolve(text); err == nil && (rule.Host == "" || len(rule.Servers) == 0 || rule.Host != strings.ToLower(rule.Host)) {
			t.Errorf("%q is taken as %+v", text, rule)
		}
		if rule, err := ParseDiscover(text); err == nil && (rule.Host == "" || rule.Name == "" && (rule.Service == "" || rule.Base.Host == "")) {
			t.Errorf("%q is taken as %+v", text, rule)
		}
	})
}

func FuzzReadInstances(f *testing.F) {
	f.Add(`[{"Node":{"Address":"127.0.0.1"},"Service":{"Address":"","Port":80,"Weights":{"Passing":3}}}]`)
	f.Fuzz(func(t *testing.T, text string) {
		servers, err := readInstances(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range servers {
			if s.Host == "" || s.Port == 0 {
				t.Errorf("%q has the instance %+v", text, s)
			}
		}
	})
}
