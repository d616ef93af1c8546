package s3store

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

// dead returns an address at which nobody listens.
func dead(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	server := s3test.Start(t)
	overTLS := httptest.NewTLSServer(http.NotFoundHandler())
	defer overTLS.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	write := func(key, text string) {
		t.Helper()
		s := openTest(t, server.URL(""))
		if _, err := s.c.put(t.Context(), key, inMemory([]byte(text)), "", condition{}); err != nil {
			t.Fatal(err)
		}
	}
	write("newer/.fetchfleet-store", `{"version":2}`)
	write("file", "in the way")
	write("archive/.fetchfleet-warc", `{"layout":1,"identity":"0123456789abcdef0123","compress":"zstd"}`+"\n")
	at := func(addr string) string { return "s3://fleet/a?endpoint=" + addr }
	tests := map[string]struct {
		url  string
		env  map[string]string
		o    Options // merged
		want []string
	}{
		"a bucket that is missing": {url: "s3://nobucket/a?endpoint=http://" + server.Addr(), want: []string{"there is no bucket nobucket", "create it"}},
		"a wrong access key":       {url: server.URL("a"), env: map[string]string{"AWS_ACCESS_KEY_ID": "stranger"}, want: []string{"does not know the access key", "AWS_ACCESS_KEY_ID"}},
		"a wrong secret":           {url: server.URL("a"), env: map[string]string{"AWS_SECRET_ACCESS_KEY": "hunter2"}, want: []string{"AWS_SECRET_ACCESS_KEY"}},
		"another region":           {url: server.URL("a") + "&region=eu-west-1", want: []string{"another region", "region=us-east-1"}},
		"nobody listens":           {url: at("http://" + dead(t)), want: []string{"cannot be reached"}},
		"a host that is none":      {url: at("http://nobody.invalid:9000"), want: []string{"nobody.invalid"}},
		"HTTPS to plain HTTP":      {url: at("https://" + server.Addr()), want: []string{"endpoint=http://" + server.Addr()}},
		"plain HTTP to HTTPS":      {url: at("http://" + overTLS.Listener.Addr().String()), want: []string{"endpoint=https://"}},
		"a certificate of nobody":  {url: at("https://" + overTLS.Listener.Addr().String()), want: []string{"certificate", "SSL_CERT_FILE"}},
		"an identity of a newer":   {url: server.URL("newer"), want: []string{"newer version"}},
		"must exist and does not":  {url: server.URL("a"), o: Options{MustExist: true}, want: []string{"there is no store"}},
		"a store of WARC files":    {url: server.URL("archive"), want: []string{"another format", "format=warc"}},
		"no credentials at all": {url: server.URL("a"), env: map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
			"AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "HOME": "/nowhere", "MINIO_ACCESS_KEY": "", "MINIO_ROOT_USER": ""}, want: []string{"no credentials", "AWS_ACCESS_KEY_ID"}},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			o, err := Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			o.MustExist = tt.o.MustExist
			began := time.Now()
			s, err := Open(t.Context(), o)
			if err == nil {
				s.Close()
				t.Fatal("Open succeeded")
			}
			t.Log(err)
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Open = %v, want %q in it", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), s3test.SecretKey) {
				t.Errorf("the error tells a secret: %v", err)
			}
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("Open took %s to fail", took)
			}
		})
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	proxy.Spoil(nth(1, s3test.Hang))
	o, err := Parse(s3test.URL(proxy.Addr(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v, want DeadlineExceeded", err)
	}
}

func TestCredentialsOfAProfile(t *testing.T) {
	server := s3test.Start(t)
	file := filepath.Join(t.TempDir(), "credentials")
	text := "[default]\naws_access_key_id = stranger\naws_secret_access_key = x\n" +
		"[fleet]\naws_access_key_id = " + s3test.AccessKey + "\naws_secret_access_key = " + s3test.SecretKey + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_PROFILE", "fleet")
	s := openTest(t, server.URL("profile"))
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.String(), s3test.SecretKey) {
		t.Errorf("String() = %s", s)
	}
}

// A unit whose account a newer program wrote is not misread.
func TestAnAccountOfANewerVersionIsRefused(t *testing.T) {
	server := s3test.Start(t)
	s := openTest(t, server.URL("newer-account"))
	text := `{"v":99,"job":"job","batch":"b1","entries":[],"attempt":"a~b~1~1","records":0}`
	if _, err := s.c.put(t.Context(), s.keys.account(crashJob, "b1"), inMemory([]byte(text)), "", condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Account(t.Context(), crashJob, "b1"); err == nil || !strings.Contains(err.Error(), "use a newer one") {
		t.Errorf("Account = %v", err)
	}
}
