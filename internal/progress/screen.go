package progress

import (
	"bytes"
	"io"
	"strings"
)

// The few escapes that are used (ECMA-48): up one line, clear to the end of the line, clear to the end of the screen.
const (
	escUp       = "\x1b[A"
	escClearEnd = "\x1b[K"
	escClearAll = "\x1b[J"
)

// draw replaces the frame on the screen in a single write, so that it does not flicker.
func (d *Display) draw(lines []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Written over the old frame and only then cleared behind: a terminal never shows an empty place in between.
	frame := []byte(strings.Join(lines, escClearEnd+"\n") + escClearAll)
	_, _ = d.opts.Out.Write(append(d.home(), frame...)) // a display that cannot write has nobody to tell
	d.drawn, d.lines = frame, len(lines)
}

// home returns what brings the cursor to the start of the frame, nothing when there is none.
func (d *Display) home() []byte {
	if d.lines == 0 {
		return nil
	}
	return []byte("\r" + strings.Repeat(escUp, d.lines-1))
}

// back returns what brings the cursor to the start of the frame and takes the frame away.
func (d *Display) back() []byte { return append(d.home(), escClearAll...) }

func (d *Display) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lines > 0 {
		_, _ = d.opts.Out.Write(d.back())
	}
	d.drawn, d.lines = nil, 0
}

func (d *Display) write(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = d.opts.Out.Write(p)
}

// Writer returns a writer to the same place as the display, for logs: on a terminal the bar steps aside for them.
// Every write must hold whole lines, as those of a logger do.
func (d *Display) Writer() io.Writer { return besideBar{d} }

type besideBar struct{ d *Display }

// Write writes whole lines where the bar is, and the bar again below them.
func (b besideBar) Write(p []byte) (int, error) {
	d := b.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lines == 0 {
		return d.opts.Out.Write(p)
	}
	if _, err := d.opts.Out.Write(bytes.Join([][]byte{d.back(), p, d.drawn}, nil)); err != nil {
		return 0, err
	}
	return len(p), nil
}
