package progress

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// count writes a number with commas: 1,234,567.
func count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// size writes bytes in the powers of 1024 with the names that people use: 980 B, 1.5 KiB, 12 MiB.
func size(n float64) string {
	if n < 1024 {
		return fmt.Sprintf("%.0f B", n)
	}
	const units = "KMGTPE"
	n /= 1024
	i := 0
	// 1023.5 would be written as 1024.
	for ; n >= 1023.5 && i < len(units)-1; i++ {
		n /= 1024
	}
	if n < 9.95 {
		return fmt.Sprintf("%.1f %ciB", n, units[i])
	}
	return fmt.Sprintf("%.0f %ciB", n, units[i])
}

// speed writes URLs per second: 0.25/s, 9.4/s, 123/s, 12,345/s.
func speed(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return "0/s"
	case perSecond < 0.995:
		return fmt.Sprintf("%.2f/s", perSecond)
	case perSecond < 9.95:
		return fmt.Sprintf("%.1f/s", perSecond)
	}
	return count(int64(math.Round(perSecond))) + "/s"
}

// span writes how long a run takes: 0.4s, 42s, 3m05s, 2h07m, 3d04h.
func span(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
}

// remaining writes an ETA: as span, in whole seconds.
func remaining(d time.Duration) string {
	if s := int64(math.Ceil(d.Seconds())); s < 60 {
		return fmt.Sprintf("%ds", s)
	}
	return span(d)
}

// plural writes a number of things: 1 bad line, 2 bad lines.
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}

// latency writes the time of an exchange: 0.8 ms, 45 ms, 1.24 s, 75 s.
func latency(d time.Duration) string {
	switch {
	case d < 9950*time.Microsecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	case d < 9995*time.Millisecond:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
