// Package disk is what the drivers that keep a store in a folder have in common: a folder held open and made where it is
// missing, files written aside and linked, flushes shared by commits that come together, and errors of the file system in
// words a person can act on. It knows nothing of a layout.
package disk
