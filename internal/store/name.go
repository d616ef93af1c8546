package store

import (
	"fmt"
	"strconv"
)

// UnitName returns the unit name of a batch in a generation: "BATCH", or "BATCH.G" for a replay.
func UnitName(batch string, generation int) string {
	if generation == 0 {
		return batch
	}
	return batch + "." + strconv.Itoa(generation)
}

// MaxName is the most bytes that the name of a job or a unit may have; with a driver's own additions it still fits
// the 255 bytes that file systems allow.
const MaxName = 120

// CheckName reports whether name can name a job or a unit in every store: 1 to MaxName ASCII letters, digits, dots,
// hyphens and underscores, beginning with a letter, a digit or an underscore, and not ending with a dot. kind is what
// the error calls it ("job", "unit"). The error wraps ErrRecord.
func CheckName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s name is empty: %w", kind, ErrRecord)
	case len(name) > MaxName:
		return fmt.Errorf("%s name %.20q… has %d bytes, more than %d: %w", kind, name, len(name), MaxName, ErrRecord)
	case name[0] == '.' || name[0] == '-' || name[len(name)-1] == '.':
		return fmt.Errorf("%s name %q begins with a dot or hyphen or ends with a dot: %w", kind, name, ErrRecord)
	}
	for i := range len(name) {
		if !nameByte(name[i]) {
			return fmt.Errorf("%s name %q holds %q, only letters, digits, '.', '-' and '_' are allowed: %w",
				kind, name, name[i], ErrRecord)
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}
