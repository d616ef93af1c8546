//go:build !(faultpoints && unix)

// Package faults marks the points between two steps at which tests stop a process. Only a binary built with the tag
// faultpoints has them; in every other a point is nothing at all.
package faults

// Point does nothing.
func Point(string) {}

// Request does nothing.
func Request(string) {}
