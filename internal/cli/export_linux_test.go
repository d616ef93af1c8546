package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// reads are the calls of read(2) and its kin of this process, and the bytes that came of them.
func reads(t *testing.T) (calls, bytes int64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("this system does not count reads:", err)
	}
	for line := range strings.Lines(string(data)) {
		_, _ = fmt.Sscanf(line, "syscr: %d", &calls)
		_, _ = fmt.Sscanf(line, "rchar: %d", &bytes)
	}
	return calls, bytes
}

// With ten times as many units an export reads ten times as much: nothing is read again for each.
func TestExportReadsEachUnitAsOftenHoweverManyThereAre(t *testing.T) {
	if testing.Short() {
		t.Skip("stores 11,000 units")
	}
	perUnit := func(units int) (calls, bytes float64) {
		_, url := stored(t, units)
		calls0, bytes0 := reads(t)
		c := &exportCommand{Job: "spring", Store: url, Format: "jsonl", Out: "-"}
		if err := c.Run(t.Context(), IO{Stdout: io.Discard, Stderr: io.Discard}); err != nil {
			t.Fatal(err)
		}
		calls1, bytes1 := reads(t)
		return float64(calls1-calls0) / float64(units), float64(bytes1-bytes0) / float64(units)
	}
	fewCalls, fewBytes := perUnit(1000)
	calls, bytes := perUnit(10_000)
	t.Logf("reads a unit: %.2f of %.0f bytes with 1,000 units, %.2f of %.0f bytes with 10,000", fewCalls, fewBytes, calls, bytes)
	if fewCalls < 1 || calls > 1.05*fewCalls || bytes > 1.05*fewBytes {
		t.Errorf("with ten times the units %.2f reads a unit instead of %.2f, %.0f bytes instead of %.0f", calls, fewCalls, bytes, fewBytes)
	}
}
