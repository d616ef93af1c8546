package warcstore

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// parameters are those of a store's URL.
const parameters = "compress=gzip|zstd, decoded=true|false, merge-size=BYTES"

// Parse splits the URL of a store into its place and the parameters behind the last "?", and puts those into o. A folder
// whose name holds a question mark is written with one more at its end.
func Parse(rest string, o Options) (place string, _ Options, err error) {
	i := strings.LastIndexByte(rest, '?')
	if i < 0 {
		return rest, o, nil
	}
	place = rest[:i]
	values, err := url.ParseQuery(rest[i+1:])
	if err != nil {
		return "", o, fmt.Errorf("store %s: %q are no parameters; there are %s", place, rest[i+1:], parameters)
	}
	for name, list := range values {
		if len(list) != 1 {
			return "", o, fmt.Errorf("store %s: parameter %q is given twice", place, name)
		}
		known, ok := o.set(name, list[0])
		if !known {
			return "", o, fmt.Errorf("store %s: unknown parameter %q: known are %s", place, name, parameters)
		}
		if !ok {
			return "", o, fmt.Errorf("store %s: %s=%.40s cannot be: write %s", place, name, list[0], parameters)
		}
	}
	return place, o, nil
}

// set reports whether a parameter is known, and whether it can have this value.
func (o *Options) set(name, value string) (known, ok bool) {
	var err error
	switch name {
	case "compress":
		o.Compress = value
		return true, slices.Contains(warc.Compressions, warc.Compression(value))
	case "decoded":
		o.Decoded, err = strconv.ParseBool(value)
	case "merge-size":
		o.MergeSize, err = strconv.ParseInt(value, 10, 64)
		return true, err == nil && o.MergeSize > 0
	default:
		return false, false
	}
	return true, err == nil
}
