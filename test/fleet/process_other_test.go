//go:build unix && !linux

package fleet_test

import (
	"os/exec"
	"testing"
	"time"
)

func dieWithParent(*exec.Cmd) {}

func cpuTime(t testing.TB, _ int) time.Duration {
	t.Skip("needs /proc")
	return 0
}

func peakMemory(t testing.TB, _ int) int {
	t.Skip("needs /proc")
	return 0
}
