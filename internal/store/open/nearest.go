package open

import "strings"

// nearest is the scheme that somebody who wrote this one may have meant, "" if there is none: at most two letters were
// added, left out or exchanged, and fewer than half of them.
func nearest(written string) string {
	written = strings.ToLower(written)
	best, least := "", 3
	for _, d := range drivers() {
		for _, scheme := range d.schemes {
			if n := distance(written, scheme); n < least && 2*n < len(scheme) {
				best, least = scheme, n
			}
		}
	}
	return best
}

// distance is how many letters must be added, left out or exchanged to make b of a (Wagner and Fischer, 1974).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // of a's beginning so far, for every beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
