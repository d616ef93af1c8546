//go:build !linux

package disk

import "errors"

var errNoNameless = errors.New("this system has no nameless files")

// Nameless is a file without a name, which this system does not have.
type Nameless struct{}

// OpenNameless fails with an error for which IsNoNameless is true.
func OpenNameless(string) (Nameless, error) { return Nameless{}, errNoNameless }

// Write fails.
func (Nameless) Write([]byte) (int, error) { return 0, errNoNameless }

// Link fails.
func (Nameless) Link(string) error { return errNoNameless }

// Close does nothing.
func (Nameless) Close() error { return nil }

// PutNameless fails with an error for which IsNoNameless is true.
func PutNameless(string, []byte) error { return errNoNameless }

// IsNoNameless says that there are no nameless files here.
func IsNoNameless(err error) bool { return errors.Is(err, errNoNameless) }

// HasProc says whether a nameless file can be given a name here.
func HasProc() bool { return false }
