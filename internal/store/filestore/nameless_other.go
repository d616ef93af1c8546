//go:build !linux

package filestore

import "errors"

var errNoNameless = errors.New("this system has no nameless files")

func writeNameless(string, []byte) (int, error) { return -1, errNoNameless }

func linkNameless(int, string) error { return errNoNameless }

func closeNameless(int) error { return errNoNameless }

func isNoNameless(err error) bool { return errors.Is(err, errNoNameless) }

func namelessLimit() int64 { return 0 }
