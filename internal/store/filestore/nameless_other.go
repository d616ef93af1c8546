//go:build !linux

package filestore

import "errors"

var errNoNameless = errors.New("this system has no nameless files")

func putNameless(string, []byte) error { return errNoNameless }

func isNoNameless(err error) bool { return errors.Is(err, errNoNameless) }

func hasProc() bool { return false }
