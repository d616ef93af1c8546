package progress

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// view renders one look at a run.
type view struct {
	Snapshot
	elapsed time.Duration
	rate    *rate
	fault   string
}

// outcomes in the order in which people read them; others follow by name.
var outcomes = []string{"ok", "http_error", "failed", "skipped"}

// line is the plain rendering, one line without its end.
func (v view) line() string {
	parts := append([]string{v.share()}, v.figures()...)
	parts = append(parts, v.troubles(len(v.Classes))...)
	return span(v.elapsed) + ": " + strings.Join(append(parts, v.notes()...), ", ")
}

// frame is the live rendering: a bar with its figures, and a line below it with what went wrong or holds back. No
// line is wider than width-1, so that no terminal wraps it. What does not fit is left out, the least needed first.
func (v view) frame(width int) []string {
	width = max(width-1, 10)
	bar := v.share()
	figures := v.figures()
	for len(figures) > 0 && len(bar)+2+len(strings.Join(figures, "  "))+1 > width {
		figures = figures[:len(figures)-1]
	}
	text := strings.Join(append([]string{bar}, figures...), "  ")
	if room := width - len(text) - 3; room >= 10 && !v.unknownTotal() {
		text = "[" + gauge(v.fraction(), min(room, 40)) + "] " + text
	}
	lines := []string{clip(text, width)}
	for classes := 3; ; classes-- {
		below := strings.Join(append(v.notes(), v.troubles(classes)...), ", ")
		if below == "" {
			return lines
		}
		if len(below) <= width || classes == 0 {
			return append(lines, clip(below, width))
		}
	}
}

// final is the line that stays.
func (v view) final() string {
	done := v.done()
	average := 0.0
	if seconds := v.elapsed.Seconds(); seconds > 0 && !v.rate.began.IsZero() {
		average = float64(done-v.rate.begunWith) / seconds
	}
	parts := []string{v.share(), speed(average), size(float64(v.Bytes))}
	parts = append(parts, v.troubles(3)...)
	if v.fault != "" {
		parts = append(parts, v.fault)
	}
	return fmt.Sprintf("%s after %s: %s", cmp.Or(v.State, "stopped"), span(v.elapsed), strings.Join(parts, ", "))
}

// share is how much is done: "1,200/5,000 24%", or of a list still being read "1,200 of 5,000 so far".
func (v view) share() string {
	if v.Listing {
		return count(v.done()) + " of " + count(v.Accepted) + " so far"
	}
	if v.Accepted == 0 {
		return count(v.done()) + "/" + count(v.Accepted)
	}
	return fmt.Sprintf("%s/%s %d%%", count(v.done()), count(v.Accepted), int(100*v.fraction()))
}

// unknownTotal reports whether no share of the whole can be told.
func (v view) unknownTotal() bool { return v.Listing && v.ListTotal <= 0 }

// fraction is the part of the run that is done, from 0 to 1; 1 only when all is.
func (v view) fraction() float64 {
	if v.Accepted == 0 {
		return 0
	}
	f := min(1, float64(v.done())/float64(v.Accepted))
	if v.Listing && v.ListTotal > 0 {
		f *= min(1, float64(v.ListDone)/float64(v.ListTotal))
	}
	return f
}

// figures are speed, ETA, bytes and requests in flight, the most needed first.
func (v view) figures() []string {
	urls, bandwidth := v.rate.perSecond()
	figures := []string{speed(urls)}
	if left, ok := v.rate.eta(v.Snapshot); ok && v.Open > 0 {
		about := ""
		if v.Listing {
			about = "~"
		}
		figures = append(figures, "ETA "+about+remaining(left))
	}
	figures = append(figures, size(float64(v.Bytes))+" ("+size(bandwidth)+"/s)")
	if v.InFlight > 0 {
		figures = append(figures, count(int64(v.InFlight))+" in flight")
	}
	return figures
}

// notes say what a person may want to act on.
func (v view) notes() []string {
	var notes []string
	if v.fault != "" {
		notes = append(notes, v.fault)
	}
	if v.HeldBack != "" {
		notes = append(notes, "held back by "+v.HeldBack)
	}
	if v.Large > 0 {
		notes = append(notes, fmt.Sprintf("large bodies: %d, %s of %s", v.Large, size(float64(v.LargeHave)), size(float64(v.LargeSize))))
	}
	if v.Listing && v.ListTotal > 0 {
		notes = append(notes, fmt.Sprintf("reading the list %d%%", min(100, 100*v.ListDone/v.ListTotal)))
	} else if v.Listing {
		notes = append(notes, "reading the list")
	}
	return notes
}

// troubles counts what is not ok, with at most as many classes as given, the most frequent first.
func (v view) troubles(classes int) []string {
	var parts []string
	for _, outcome := range sortedOutcomes(v.Outcomes) {
		if n := v.Outcomes[outcome]; n > 0 && outcome != "ok" {
			parts = append(parts, count(n)+" "+outcome)
		}
	}
	if names := byCount(v.Classes); len(parts) > 0 && len(names) > 0 && classes > 0 {
		var list []string
		for _, name := range names[:min(classes, len(names))] {
			list = append(list, name+" "+count(v.Classes[name]))
		}
		if len(names) > classes {
			list = append(list, "…")
		}
		parts[len(parts)-1] += " (" + strings.Join(list, ", ") + ")"
	}
	if v.BadLines > 0 {
		parts = append(parts, plural(v.BadLines, "bad line"))
	}
	return parts
}

func sortedOutcomes(counts map[string]int64) []string {
	rank := func(outcome string) int {
		if i := slices.Index(outcomes, outcome); i >= 0 {
			return i
		}
		return len(outcomes)
	}
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

// byCount returns the names with a count above 0, the most frequent first.
func byCount(counts map[string]int64) []string {
	var names []string
	for name, n := range counts {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	return names
}

// gauge draws a bar of the given width.
func gauge(fraction float64, width int) string {
	full := int(fraction * float64(width))
	if full >= width {
		return strings.Repeat("=", width)
	}
	return strings.Repeat("=", full) + ">" + strings.Repeat(" ", width-full-1)
}

// clip cuts a line to a width in columns, and takes out what would move the cursor.
func clip(s string, width int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	return string(runes[:width-1]) + "…"
}
