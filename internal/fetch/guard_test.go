package fetch

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNamesThatCannotBeResolvedHaveTheirClass(t *testing.T) {
	f := newFetcher(t, Options{Resolver: newResolver(t, nil)})
	for host, want := range map[string]Class{
		"missing.test": DNSNotFound,
		"broken.test":  DNSTemporary,
	} {
		_, err := f.Do(context.Background(), &Request{URL: "http://" + host + "/"})
		if got := ClassOf(err); got != want {
			t.Errorf("%s: class %s (%v), want %s", host, got, err, want)
		}
	}
}

func TestANameServerThatSaysNothingIsTemporary(t *testing.T) {
	over := make(chan struct{})
	r := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			io.Copy(io.Discard, theirs)
			theirs.Close()
		}()
		go func() { // net's lookup outlives the dial that asked for it: end it with the test
			<-over
			theirs.Close()
		}()
		return ours, nil
	}}
	defer close(over)
	f := newFetcher(t, Options{Resolver: r, ConnectTimeout: 2 * soon})
	_, err := f.Do(context.Background(), &Request{URL: "http://example.test/"})
	wantClass(t, err, DNSTemporary)
}

func TestPrivateAddressesAreRefusedHoweverTheyAreWritten(t *testing.T) {
	r := newResolver(t, map[string][4]byte{"metadata.test": {169, 254, 169, 254}})
	f := New(Options{Resolver: r, ConnectTimeout: time.Second}) // nothing allowed
	t.Cleanup(f.Close)
	for _, host := range []string{
		"127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
		"169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "240.0.0.1",
		"255.255.255.255", "224.0.0.1",
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
		"[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fc00::1]", "[fd00:ec2::254]",
		"[fe80::1]", "[ff02::1]", "[fec0::1]",
		"metadata.test", "rebound.test", // names
		"0x7f000001", "0x7f.1", // names to Go, which a resolver may well know
	} {
		_, err := f.Do(context.Background(), &Request{URL: "http://" + host + ":1/"})
		if got := ClassOf(err); got != AddressRefused {
			t.Errorf("%s: class %s (%v), want %s", host, got, err, AddressRefused)
		}
	}
}

func TestNumbersAreNotDialledAsAddresses(t *testing.T) {
	f := New(Options{Resolver: newResolver(t, nil)})
	t.Cleanup(f.Close)
	for _, host := range []string{"2130706433", "017700000001", "127.1"} {
		_, err := f.Do(context.Background(), &Request{URL: "http://" + host + ":1/"})
		// Go's own resolver does not ask for such names, that of the system may.
		if got := ClassOf(err); got != AddressRefused && got != DNSNotFound {
			t.Errorf("%s: class %s (%v)", host, got, err)
		}
	}
}

func TestTheRefusalNamesAddressHostAndFlag(t *testing.T) {
	f := New(Options{Resolver: newResolver(t, nil)})
	t.Cleanup(f.Close)
	_, err := f.Do(context.Background(), &Request{URL: "http://example.test/"})
	want := "address 127.0.0.1 of example.test is private: allow it with --allow-private 127.0.0.0/8"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to say %q", err, want)
	}
	_, err = f.Do(context.Background(), &Request{URL: "http://169.254.169.254/latest/meta-data/"})
	want = "address 169.254.169.254 is private: allow it with --allow-private 169.254.0.0/16"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to say %q", err, want)
	}
}

func TestARedirectToAPrivateAddressIsRefused(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{AllowPrivate: mustPrefixes("127.0.0.1/32")})
	for _, to := range []string{"http://127.0.0.2/", "http://2130706434/", "http://[::ffff:127.0.0.2]/", "//0x7f.2/"} {
		r := &Request{URL: o.URL("/redirect?to=" + to)}
		res, _, err := fetch(f, r)
		if err != nil {
			t.Fatal(err)
		}
		next, ok, err := Redirect(r, res)
		if !ok || err != nil {
			t.Fatalf("Redirect = %v, %v", ok, err)
		}
		_, err = f.Do(context.Background(), next)
		wantClass(t, err, AddressRefused)
	}
}

func TestAllowedBlocksMayBeDialled(t *testing.T) {
	for addr, c := range map[string]struct {
		allow []string
		want  bool
	}{
		"93.184.216.34":      {nil, true},
		"2606:2800:220:1::1": {nil, true},
		"192.0.1.1":          {nil, true},
		"100.128.0.1":        {nil, true},
		"10.0.0.1":           {[]string{"10.0.0.0/24"}, true},
		"10.0.1.1":           {[]string{"10.0.0.0/24"}, false},
		"::1":                {[]string{"127.0.0.0/8"}, false},
		"::ffff:10.0.0.1":    {[]string{"10.0.0.1"}, true},
		"10.0.0.2":           {[]string{"::ffff:10.0.0.0/104"}, true},
		"fe80::1%eth0":       {[]string{"fe80::/10"}, true},
		"169.254.169.254":    {[]string{"all"}, true},
		"fd00::1":            {[]string{"all"}, true},
		"64:ff9b::10.0.0.1":  {[]string{"10.0.0.0/8"}, false},
	} {
		prefixes, err := ParsePrefixes(c.allow)
		if err != nil {
			t.Fatal(err)
		}
		err = newGuard(prefixes).check(netip.MustParseAddr(addr))
		if got := err == nil; got != c.want {
			t.Errorf("with %v allowed, %s: %v, want allowed %v", c.allow, addr, err, c.want)
		}
	}
}

func TestParsePrefixes(t *testing.T) {
	got, err := ParsePrefixes([]string{"10.1.2.3/8", " ::1 ", "127.0.0.1", "ALL"})
	want := mustPrefixes("10.0.0.0/8", "::1/128", "127.0.0.1/32", "0.0.0.0/0", "::/0")
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("error %v, -want +got:\n%s", err, diff)
	}
	for _, bad := range []string{"", "localhost", "10.0.0.0/33", "10.0.0"} {
		if _, err := ParsePrefixes([]string{bad}); err == nil || !strings.Contains(err.Error(), `"`+bad+`"`) {
			t.Errorf("ParsePrefixes(%q) = %v, want an error that names it", bad, err)
		}
	}
}
