package main

import "golang.org/x/sys/unix"

// flush writes to disk what is still in memory.
func flush() error {
	unix.Sync()
	return nil
}
