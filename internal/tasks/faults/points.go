//go:build faultpoints && unix

// Package faults marks the points between two steps at which tests stop a process. Only a binary built with the tag
// faultpoints has them; in every other a point is nothing at all.
package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Point stops the process if FLEET_FAULT names it: "after-commit=kill" or "after-commit=stop", the latter as SIGSTOP
// would. FLEET_FAULT_DIR holds a file per point that was hit, so that each strikes once however often the process is
// started again; FLEET_FAULT_ALWAYS=1 strikes every time.
func Point(name string) {
	point, what, ok := strings.Cut(os.Getenv("FLEET_FAULT"), "=")
	if !ok || point != name {
		return
	}
	if os.Getenv("FLEET_FAULT_ALWAYS") == "" {
		mark := filepath.Join(os.Getenv("FLEET_FAULT_DIR"), fmt.Sprintf("%s=%s", point, what))
		f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return
		}
		_ = f.Close()
	}
	signal := syscall.SIGKILL
	if what == "stop" {
		signal = syscall.SIGSTOP
	}
	_ = syscall.Kill(os.Getpid(), signal)
	time.Sleep(time.Second) // the signal is on its way
}

// Request kills the process if the URL contains FLEET_FAULT_URL.
func Request(url string) {
	if part := os.Getenv("FLEET_FAULT_URL"); part != "" && strings.Contains(url, part) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Second)
	}
}
