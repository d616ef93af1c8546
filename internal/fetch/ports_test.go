package fetch

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestPortsThatMayBeAsked(t *testing.T) {
	for claim, c := range map[string]struct {
		given   []string
		yes, no []uint16
	}{
		"by default those of HTTP and free ones": {nil, []uint16{80, 443, 8080, 6379, 49152, 65535}, []uint16{22, 25, 6000, 10080}},
		"an empty variable says nothing":         {[]string{" "}, []uint16{80}, []uint16{25}},
		"one":                                    {[]string{"8080"}, []uint16{8080}, []uint16{80, 443, 8081}},
		"ranges and single ones":                 {[]string{"80", " 8000 - 8002 "}, []uint16{80, 8000, 8001, 8002}, []uint16{81, 7999, 8003}},
		"all":                                    {[]string{"ALL"}, []uint16{1, 25, 80, 65535}, nil},
		"one of another protocol, if named":      {[]string{"25"}, []uint16{25}, []uint16{80}},
	} {
		p, err := ParsePorts(c.given)
		if err != nil {
			t.Errorf("%s: %v", claim, err)
			continue
		}
		for _, port := range c.yes {
			if !p.allows(port) {
				t.Errorf("%s: %d is refused", claim, port)
			}
		}
		for _, port := range c.no {
			if p.allows(port) {
				t.Errorf("%s: %d is allowed", claim, port)
			}
		}
	}
	if !slices.IsSorted(foreign) {
		t.Error("the list is not sorted")
	}
	for _, bad := range []string{"http", "0", "65536", "-1", "80-", "90-80", "80,81", "1-2-3"} {
		if _, err := ParsePorts([]string{bad}); err == nil || !strings.Contains(err.Error(), strconv.Quote(bad)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPortsOfOtherProtocolsAreNotAsked(t *testing.T) {
	f := newFetcher(t, Options{})
	only, _ := ParsePorts([]string{"443"})
	strict := newFetcher(t, Options{Ports: only})
	for claim, c := range map[string]struct {
		f   *Fetcher
		url string
	}{
		"mail":                    {f, "http://127.0.0.1:25/"},
		"X11 over TLS":            {f, "https://127.0.0.1:6000/"},
		"the usual, not allowed":  {strict, "http://127.0.0.1/"},
		"another, not allowed":    {strict, "https://127.0.0.1:8443/"},
		"http on 443 is, by port": {strict, "http://127.0.0.1:80/"},
	} {
		_, err := c.f.Do(context.Background(), &Request{URL: c.url})
		wantClass(t, err, AddressRefused)
		if !strings.Contains(err.Error(), "--ports") {
			t.Errorf("%s: %v does not say how to allow it", claim, err)
		}
	}
}

// FuzzParsePorts: what is read without an error allows what is within its bounds.
func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"80", "8000-8999", "all", "", "-", "1-65535", "99999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePorts([]string{text})
		if err != nil {
			return
		}
		for _, r := range p.allowed {
			if r.from == 0 || r.to < r.from || !p.allows(r.from) || !p.allows(r.to) {
				t.Errorf("%q: %v", text, r)
			}
		}
	})
}
