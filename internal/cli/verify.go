package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/verify"
)

type verifyCommand struct {
	Job         string       `arg:"" help:"Job to verify."`
	Store       string       `env:"FLEET_STORE" required:"" placeholder:"URL" help:"The store that the job's workers were given; one of them if there are several."`
	Repair      bool         `env:"FLEET_REPAIR" help:"Mend what can be mended without losing anything: remove torn temporaries, rebuild indexes."`
	Bodies      verify.Share `env:"FLEET_BODIES" default:"all" placeholder:"all|none|N%" help:"Which bodies to read: all, none, or another part each time (default: ${default})."`
	Concurrency int          `env:"FLEET_CONCURRENCY" default:"4" help:"Bodies to read at once (default: ${default})."`
	JSON        bool         `name:"json" env:"FLEET_JSON" help:"Print one JSON object."`
}

// Help is what --help says besides.
func (*verifyCommand) Help() string {
	return `Reads everything of a job again: that every account is whole and of its unit, that its records are those it names, and
that every body has the length and SHA-256 of its record; then what the store's own files, objects or tables must look
like. It needs the store alone, no Redis, and may run beside the job. Whether every request has its record is what
'fleet audit' tells.

A line that begins with "wrong:" is a problem, one with "mended:" was one, and one with "note:" says what is allowed but
worth knowing, like bodies that no record refers to. Kinds: torn, missing, length, digest, structure, index, temporary,
orphan.

Exit codes: 0 nothing is wrong, or not any more; 1 something is, or the store cannot be read; 2 wrong usage;
130 interrupted.

Fields of --json: job, store; units, records, bodies (read), bytes_read, unread, not_kept; problems, mended, notes;
findings: kind, where, what, note, mended (the first 1000), and more, how many findings there are beyond those.

  fleet verify spring --store file:/data
  fleet verify spring --store file:/data --bodies 5%
  fleet verify spring --store file:/data --repair`
}

// Run verifies a job. It fails when anything is wrong and not mended.
func (c *verifyCommand) Run(ctx context.Context, w IO) error {
	if c.Concurrency < 1 {
		return usage("--concurrency: %d bodies at once cannot be read: give 1 or more", c.Concurrency)
	}
	s, err := openStore(ctx, c.Store)
	if err != nil {
		return err
	}
	defer s.Close()
	o := verify.Options{Bodies: c.Bodies, Concurrency: c.Concurrency, Repair: c.Repair}
	line := verifyLine{w: w.Stderr, shown: !c.JSON && isTerminal(w.Stderr)}
	if line.shown {
		o.Progress = line.draw
	}
	told := 0
	if !c.JSON {
		o.Found = func(f store.Finding) {
			if told++; told <= verify.MaxFindings {
				line.clear()
				fmt.Fprintln(w.Stdout, findingText(f))
			}
		}
	}
	report, err := verify.Run(ctx, s, c.Job, o)
	line.clear()
	if err != nil && errors.Is(context.Cause(ctx), errInterrupted) {
		return &exitError{code: ExitInterrupted, err: fmt.Errorf("%w after %s", errInterrupted, figuresText(report.Figures))}
	}
	if err != nil {
		return err
	}
	if err := c.print(w.Stdout, report); err != nil || report.OK() {
		return err
	}
	return &exitError{code: ExitFailed, err: fmt.Errorf("verify of job %s found %s", c.Job, plural(report.Problems, "problem"))}
}

// print writes the report, without the findings that were told as they were made.
func (c *verifyCommand) print(w io.Writer, r *verify.Report) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(r)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %s more\n", plural(r.More, "finding"))
	}
	if r.Unread > 0 {
		fmt.Fprintf(w, "references to bodies that were left out (--bodies): %d\n", r.Unread)
	}
	if r.NotKept > 0 {
		fmt.Fprintf(w, "records of answers whose bodies were not kept: %d\n", r.NotKept)
	}
	_, err := fmt.Fprintf(w, "job %s: %s; %s, %d mended, %s\n", r.Job, figuresText(r.Figures),
		plural(r.Problems, "problem"), r.Mended, plural(r.Notes, "note"))
	return err
}

func findingText(f store.Finding) string {
	word := "wrong"
	switch {
	case f.Mended:
		word = "mended"
	case f.Note:
		word = "note"
	}
	return fmt.Sprintf("%s: %s: %s: %s", word, f.Kind, f.Where, f.What)
}

func figuresText(f verify.Figures) string {
	return fmt.Sprintf("%s, %s, %s read with %s", plural(f.Units, "unit"), plural(f.Records, "record"),
		bodiesText(f.Bodies), plural(f.BytesRead, "byte"))
}

func bodiesText(n int64) string {
	if n == 1 {
		return "1 body"
	}
	return fmt.Sprintf("%d bodies", n)
}

// verifyLine is one line of progress on a terminal. It is used by one goroutine at a time.
type verifyLine struct {
	w            io.Writer
	shown, drawn bool
}

func (l *verifyLine) draw(f verify.Figures) {
	fmt.Fprintf(l.w, "\r%s, %s\x1b[K", figuresText(f), plural(f.Problems, "problem"))
	l.drawn = true
}

// clear takes the line away.
func (l *verifyLine) clear() {
	if l.drawn {
		fmt.Fprint(l.w, "\r\x1b[K")
		l.drawn = false
	}
}
