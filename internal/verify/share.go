package verify

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"strings"
)

// Share is which part of the bodies is read. The zero value is all.
type Share struct {
	LeftOut float64 // the part that is not read, from 0 to 1
}

// Part is a share from 0, none, to 1, all.
func Part(p float64) Share { return Share{LeftOut: 1 - min(max(p, 0), 1)} }

var errShare = errors.New("write all, none or a percentage like 5%")

// UnmarshalText reads "all", "none" or a percentage: "5%".
func (s *Share) UnmarshalText(text []byte) error {
	switch word := string(text); word {
	case "all":
		*s = Part(1)
	case "none":
		*s = Part(0)
	default:
		number, ok := strings.CutSuffix(word, "%")
		p, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil || math.IsNaN(p) || p < 0 || p > 100 {
			return errShare
		}
		*s = Part(p / 100)
	}
	return nil
}

// takes reports whether the body of a key is among those read. All references to a body have one answer.
func (s Share) takes(k key) bool {
	chance := float64(binary.LittleEndian.Uint64(k[:8])>>11) / (1 << 53) // from 0, below 1
	return s.LeftOut == 0 || chance >= s.LeftOut
}
