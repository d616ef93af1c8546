// Package disktest gives tests file systems that are small and can be full, and folders whose flushes can fail, for tests
// only. Where file systems cannot be mounted (not Linux, not root, a container without the right to) it has none, or skips
// the test.
package disktest
