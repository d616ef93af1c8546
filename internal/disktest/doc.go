// Package disktest gives tests file systems that are small and can be full, for tests only. Where they cannot be
// mounted (not Linux, not root, a container without the right to) it has nothing, or skips the test.
package disktest
