package audit_test

import (
	"fmt"
	"os"
	"strings"
)

// readCalls is how often this process has called read(2) and its kin, 0 where the system does not count it.
func readCalls() (calls int64) {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		_, _ = fmt.Sscanf(line, "syscr: %d", &calls)
	}
	return calls
}
