package fetchtest

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newOrigin(t *testing.T, opts ...Option) (*Origin, func(url string) (int, []byte)) {
	t.Helper()
	o := NewOrigin(opts...)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		o.Close()
	})
	return o, func(url string) (int, []byte) {
		t.Helper()
		res, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body
	}
}

func TestPageIsTheSameForEveryProcessAndExactlyAsLong(t *testing.T) {
	for _, size := range []int{1, 40, 100, 2048, 10_000} {
		a, b := Page("/page/a", size), Page("/page/b", size)
		if len(a) != size || !bytes.Equal(a, Page("/page/a", size)) {
			t.Errorf("Page(/page/a, %d) has %d bytes or differs between calls", size, len(a))
		}
		if size > 100 && bytes.Equal(a, b) {
			t.Errorf("pages of %d bytes at two paths are equal", size)
		}
	}
}

func TestOriginServesItsPage(t *testing.T) {
	o, get := newOrigin(t)
	if code, body := get(o.URL("/page/x?size=300")); code != 200 || !bytes.Equal(body, Page("/page/x", 300)) {
		t.Errorf("GET /page/x?size=300 = %d, %d bytes", code, len(body))
	}
	if code, _ := get(o.URL("/nothing")); code != 404 {
		t.Errorf("GET /nothing = %d, want 404", code)
	}
}

func TestFlakyPathsChangeTheirMindByID(t *testing.T) {
	o, get := newOrigin(t)
	for _, id := range []string{"a", "b"} {
		for i, want := range []int{503, 503, 200, 200} {
			if got, _ := get(o.URL("/flaky/2/" + id)); got != want {
				t.Errorf("request %d of flaky %s = %d, want %d", i+1, id, got, want)
			}
		}
	}
	for i, want := range []int{429, 200} {
		if got, _ := get(o.URL("/retry-after/1/x")); got != want {
			t.Errorf("request %d of retry-after = %d, want %d", i+1, got, want)
		}
	}
}

func TestLedgerCountsByPathHostAndWindow(t *testing.T) {
	if runtime.GOOS == "darwin" {
		t.Skip("macOS has only 127.0.0.1")
	}
	o, get := newOrigin(t)
	second := o.Host(2)
	get(o.URL("/page/a"))
	get(o.URL("/page/a"))
	get(second + "/page/a")
	if got := o.Count("/page/a"); got != 3 {
		t.Errorf("Count = %d, want 3", got)
	}
	if got := o.MostWithin(o.Addr(), time.Hour); got != 2 {
		t.Errorf("MostWithin an hour at the first host = %d, want 2", got)
	}
	if got := o.MostWithin(o.Addr(), time.Nanosecond); got != 1 {
		t.Errorf("MostWithin a nanosecond = %d, want 1", got)
	}
	if got := len(o.Requests()); got != o.Total() || got != 3 {
		t.Errorf("%d requests in the ledger, total %d, want 3", got, o.Total())
	}
	o.Forget()
	if o.Total() != 0 || o.Count("/page/a") != 0 || len(o.Requests()) != 0 {
		t.Error("Forget left something")
	}
}

func TestPeakIsTheMostInServiceAtOnce(t *testing.T) {
	o, get := newOrigin(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	o.Handle("/wait", func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-goOn
	})
	done := make(chan struct{})
	for range 3 {
		go func() {
			get(o.URL("/wait"))
			done <- struct{}{}
		}()
	}
	for range 3 {
		<-arrived
	}
	if got := o.InService(o.Addr()); got != 3 {
		t.Errorf("InService = %d, want 3", got)
	}
	close(goOn)
	for range 3 {
		<-done
	}
	get(o.URL("/page/a"))
	if got := o.Peak(o.Addr()); got != 3 {
		t.Errorf("Peak = %d, want 3", got)
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	o := NewOrigin(CountsOnly())
	failed := make(chan error)
	go func() {
		res, err := http.Get(o.URL("/hang"))
		if err == nil {
			res.Body.Close()
		}
		failed <- err
	}()
	for o.InService(o.Addr()) == 0 {
		runtime.Gosched()
	}
	o.Close()
	if err := <-failed; err == nil {
		t.Error("a hanging request was answered")
	}
}
