// Package progress is what a person sees of a run: a live bar on a terminal, a plain line now and then in a pipe, and
// the summary at the end.
//
// It promises that a display never slows the run down, that nothing but whole lines goes into a pipe, that a terminal
// is left with its cursor at the start of an empty line, and that memory stays bounded however many hosts there are.
package progress

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Ended is the State in which a display stops by itself.
const Ended = "ended"

// Snapshot is the state of a job at one moment.
type Snapshot struct {
	State                string           // one word for people: "accepting", "running", "paused"; Ended stops the display
	Accepted, Open       int64            // requests; those done are counted by Outcomes
	Outcomes             map[string]int64 // requests that have their record, by outcome
	Classes              map[string]int64 // those that are not ok, by error class
	Bytes                int64            // decoded bytes of stored bodies
	Duplicates, BadLines int64            // lines of the list that made no request
	Listing              bool             // the list is still being read
	ListDone, ListTotal  int64            // bytes of the list; a total of 0 is unknown (standard input)
	HeldBack             string           // what holds the run back: "host limits (--host-rate, --host-conns)"
	InFlight             int              // requests being fetched now
	Large                int              // large bodies under way, or cut and to go on
	LargeHave, LargeSize int64            // bytes of them that are there, and in all
}

// done is the number of requests that have their record.
func (s Snapshot) done() int64 {
	var n int64
	for _, count := range s.Outcomes {
		n += count
	}
	return n
}

// Options say where and how to show. The zero value shows nothing.
type Options struct {
	Out      io.Writer        // nil = nowhere
	Terminal bool             // draw a live bar; Out should be a terminal then, see IsTerminal
	Quiet    bool             // show nothing at all
	Interval time.Duration    // between two looks; 0 = 200 ms on a terminal, else 5 s
	Now      func() time.Time // nil = time.Now
	Width    func() int       // columns of the terminal; nil = asked of Out, 80 when it does not tell
}

// IsTerminal reports whether a live bar can be drawn on a file.
func IsTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" && enableEscapes(f)
}

// Display shows one run. Make it with New, drive it with Run.
type Display struct {
	opts   Options
	sample func(context.Context) (Snapshot, error)
	start  time.Time
	rate   rate
	last   Snapshot
	fault  string // why the last look failed

	mu    sync.Mutex // guards what is on the screen
	drawn []byte     // the frame on the screen, to be drawn again after a log line
	lines int        // how many lines of the screen it takes
}

// New makes a display of what sample returns. Sample is called by Run alone, never twice at a time; while it fails
// the last good snapshot stays, with the error beside it.
func New(o Options, sample func(context.Context) (Snapshot, error)) *Display {
	if o.Out == nil {
		o.Out, o.Quiet = io.Discard, true
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Interval <= 0 {
		o.Interval = 5 * time.Second
		if o.Terminal {
			o.Interval = 200 * time.Millisecond
		}
	}
	if o.Width == nil {
		o.Width = widthOf(o.Out)
	}
	return &Display{opts: o, sample: sample}
}

// Run shows the run until ctx is done or its state is Ended, then shows one final line. It returns the last snapshot,
// taken after ctx was done, and its error.
func (d *Display) Run(ctx context.Context) (Snapshot, error) {
	d.start = d.opts.Now()
	ticker := time.NewTicker(d.opts.Interval)
	defer ticker.Stop()
	for first := true; ; first = false {
		err := d.look(ctx)
		if ctx.Err() != nil || err == nil && d.last.State == Ended {
			break
		}
		if !first || d.opts.Terminal {
			d.show()
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	err := d.look(context.WithoutCancel(ctx))
	d.finish()
	return d.last, err
}

// lookLimit is how long one look may take: with Redis away the display goes on telling so.
const lookLimit = 2 * time.Second

func (d *Display) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	s, err := d.sample(ctx)
	if err != nil {
		d.fault = err.Error()
		return err
	}
	d.last, d.fault = s, ""
	d.rate.add(d.opts.Now(), s.done(), s.Bytes)
	return nil
}

func (d *Display) show() {
	if d.opts.Quiet {
		return
	}
	v := view{Snapshot: d.last, elapsed: d.opts.Now().Sub(d.start), rate: &d.rate, fault: d.fault}
	if !d.opts.Terminal {
		d.write([]byte(v.line() + "\n"))
		return
	}
	d.draw(v.frame(d.opts.Width()))
}

func (d *Display) finish() {
	if d.opts.Quiet {
		return
	}
	d.clear()
	v := view{Snapshot: d.last, elapsed: d.opts.Now().Sub(d.start), rate: &d.rate, fault: d.fault}
	d.write([]byte(v.final() + "\n"))
}

func widthOf(out io.Writer) func() int {
	file, ok := out.(*os.File)
	return func() int {
		if ok {
			if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
				return width
			}
		}
		return 80
	}
}
