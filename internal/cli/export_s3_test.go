package cli

import (
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

// An export from S3 asks as often for each unit however many there are: it is requests that are paid for.
func TestExportFromS3AsksForEachUnitAsOftenHoweverManyThereAre(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	for _, units := range []int{1000, 10_000} {
		if units > 1000 && testing.Short() {
			t.Skip("10,000 units take a while")
		}
		prefix := fmt.Sprint("many-", units)
		for i := range units {
			a, r := unitOf(fmt.Sprintf("b%05d", i), 0, store.OK)
			server.Plant(prefix, a, r)
		}
		server.PlantIdentity(prefix)
		proxy.Reset()
		c := &exportCommand{Job: "spring", Store: s3test.URL(proxy.Addr(), prefix), Format: "urls", Out: "-"}
		var lines lineCounter
		if err := c.Run(t.Context(), IO{Stdout: &lines, Stderr: io.Discard}); err != nil {
			t.Fatal(err)
		}
		if int(lines) != units {
			t.Errorf("%d URLs were exported, want %d", lines, units)
		}
		// The identity; the first page of a listing, whether there is such a job; two listings; each account, for its
		// generation, and once more with the records that are in it.
		want := map[string]int{"GET": 2 + 2*((units+999)/1000) + 2*units}
		if diff := cmp.Diff(want, proxy.Calls()); diff != "" {
			t.Errorf("requests for an export of %d units (-want +got):\n%s", units, diff)
		}
	}
}

// lineCounter counts the lines that are written to it.
type lineCounter int

func (n *lineCounter) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' {
			*n++
		}
	}
	return len(p), nil
}
