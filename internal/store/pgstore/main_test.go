package pgstore

import (
	"net/url"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
	"go.uber.org/goleak"
)

// shared is the server of all tests that do not stop it.
var shared pgtest.Shared

func TestMain(m *testing.M) {
	crash.Main(crashChild)
	code := m.Run()
	shared.Close()
	if err := goleak.Find(); code == 0 && err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		url := shared.Server(t).Database(t)
		reopen := func() store.Store { return openTest(t, url, Options{Worker: "w1"}) }
		return reopen(), reopen
	})
}

func openTest(t testing.TB, url string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// with adds a parameter to a URL.
func with(raw, name, value string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err) // made by the test
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}
