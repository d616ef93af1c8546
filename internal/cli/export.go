package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/export"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

type exportCommand struct {
	Job    string   `arg:"" help:"Job to export."`
	Store  string   `env:"FLEET_STORE" required:"" placeholder:"URL" help:"The store that the job's workers were given; one of them if there are several."`
	Format string   `env:"FLEET_FORMAT" default:"jsonl" enum:"jsonl,csv,parquet,warc,urls" help:"jsonl, csv, parquet, warc or urls (default: ${default})."`
	Where  []string `env:"FLEET_WHERE" sep:"none" placeholder:"EXPR" help:"Only records that meet this: outcome=failed, status>=500, url~^https:; may be repeated, and then all must hold."`
	Fields []string `env:"FLEET_FIELDS" placeholder:"A" help:"Columns of csv, in this order (default: all)."`
	Out    string   `short:"o" env:"FLEET_OUT" default:"-" placeholder:"FILE" help:"File to write, compressed if its name ends in .gz or .zst; for warc a folder; - is standard output (default: ${default})."`
	Limit  int64    `env:"FLEET_LIMIT" placeholder:"N" help:"At most N records (default: all)."`
}

// Help is what --help says besides.
func (*exportCommand) Help() string {
	return `Of each request the record that counts, in no order, straight from the store: no Redis is needed, and the job may still
be going on. FILE appears when it is whole; for warc it is a folder, made if it is not there, and all of a job in a
store of WARC files is copied as it is.

  jsonl    one JSON object a line, as in results.jsonl
  csv      RFC 4180 with a header line; headers, redirects and meta as JSON
  parquet  the same columns with types, times in UTC; zstd inside
  urls     the URL of each request alone, one a line
  warc     WARC 1.1 with the bodies, in files of about 1 GB, and an index

--where FIELD=VALUE, or one of != < <= > >= ~ between them. Fields: ` + strings.Join(filterFields, ", ") + `,
any other column of csv, meta.KEY (of the list's line) and header.NAME (of the answer). = and != take several values
with commas between them: outcome=failed,http_error; not so in URLs, bodies, messages, meta and headers, where a comma
is part of the value. No value: the record has none. < and > are for numbers and times; a date is a whole day in UTC.
~ is an RE2 regular expression. --fields takes the same names.

  fleet export spring --store data --format parquet -o spring.parquet
  fleet export spring --store data --format urls --where outcome=failed | enqueue -
  fleet export spring --store data --format csv --fields url,status,meta.tag -o spring.csv.gz

Exit codes: 0 all that was asked for was written, or whoever reads the pipe has read enough; 1 could not; 2 wrong usage;
130 interrupted, and FILE is as it was.
`
}

// filterFields are those that people ask for most.
var filterFields = []string{"outcome", "status", "error.class", "host", "url", "final_url", "method", "content_type", "bytes",
	"attempts", "elapsed_ms", "fetched_at", "worker", "protocol", "unchanged"}

// Validate refuses what is wrong before anything is read.
func (c *exportCommand) Validate() error {
	if _, err := export.ParseFilter(c.Where...); err != nil {
		return fmt.Errorf("--where %w", err)
	}
	if err := export.CheckFields(c.Fields); err != nil {
		return fmt.Errorf("--fields: %w", err)
	}
	if len(c.Fields) > 0 && export.Format(c.Format) != export.CSV {
		return fmt.Errorf("--fields is for --format csv alone: %s has every column", c.Format)
	}
	if c.Limit < 0 {
		return fmt.Errorf("--limit %d: 1 or more, or 0 for all", c.Limit)
	}
	if c.isWARC() && c.Out == stdout {
		return errors.New("--format warc writes several files: give --out DIR")
	}
	if export.Format(c.Format).Binary() && compression(c.Out) != "" {
		return fmt.Errorf("--out %s: %s is compressed inside: leave %s out of the name", c.Out, c.Format, compression(c.Out))
	}
	return nil
}

// Run exports a job.
func (c *exportCommand) Run(ctx context.Context, w IO) error {
	if err := tasks.JobID(c.Job).Validate(); err != nil {
		return usage("%w", err)
	}
	target := c.target
	if c.isWARC() {
		target = c.folder
	}
	path, err := target(w)
	if err != nil {
		return err
	}
	s, err := openStore(ctx, c.Store)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := hasJob(ctx, s, c.Job); err != nil {
		return err
	}
	return (&exporting{exportCommand: c, store: s}).run(ctx, w, path)
}

// target is the regular file to be written, whole or not at all; "" where the records go somewhere as they come.
func (c *exportCommand) target(w IO) (string, error) {
	if c.Out == stdout {
		if export.Format(c.Format).Binary() && isTerminal(w.Stdout) {
			return "", usage("--format %s is nothing for a terminal: give --out FILE, or a pipe", c.Format)
		}
		return "", nil
	}
	there, err := os.Stat(c.Out)
	switch {
	case err == nil && there.IsDir():
		return "", usage("--out %s is a folder: name a file in it", c.Out)
	case err == nil && !there.Mode().IsRegular(): // a named pipe, /dev/null: not to be replaced
		return "", nil
	case err == nil:
		return filepath.EvalSymlinks(c.Out) // what a link leads to is replaced, not the link
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("--out: %w", err)
	}
	if folder, err := os.Stat(filepath.Dir(c.Out)); err != nil || !folder.IsDir() {
		return "", usage("--out %s: there is no folder %s: make it first", c.Out, filepath.Dir(c.Out))
	}
	return c.Out, nil
}

// stdout is what --out calls standard output.
const stdout = "-"

// hasJob refuses a job of which nothing is in the store.
func hasJob(ctx context.Context, s store.Store, job string) error {
	for _, err := range s.Units(ctx, job) {
		return err // one is enough
	}
	return fmt.Errorf("job %s: no such job in %s, or nothing of it is stored yet%s: check the id, and --store", job, s, otherJobs(ctx, s))
}

// otherJobs lists some jobs that are there, where the store can tell.
func otherJobs(ctx context.Context, s store.Store) string {
	lister, ok := s.(interface {
		Jobs(ctx context.Context) iter.Seq2[string, error]
	})
	if !ok {
		return ""
	}
	var names []string
	for name, err := range lister.Jobs(ctx) {
		if err != nil {
			return ""
		}
		if names = append(names, name); len(names) > 10 {
			names[10] = "…"
			break
		}
	}
	if len(names) == 0 {
		return " (there is no job at all)"
	}
	slices.Sort(names)
	return " (there are " + strings.Join(names, ", ") + ")"
}

// exporting is one export.
type exporting struct {
	*exportCommand
	store  store.Store
	counts export.Counts
	broken error // why the records could not be read, which is no fault of the file
	taken  int   // WARC files that the store had
}

// run writes to a file, or to wherever records go when path is "".
func (e *exporting) run(ctx context.Context, w IO, path string) (err error) {
	hide := e.display(w)
	switch {
	case e.isWARC():
		err = e.archive(ctx, path)
	case path != "":
		err = writeAtomically(path, func(out io.Writer) error { return e.compressed(ctx, out) })
	default:
		err = e.stream(ctx, w)
	}
	hide()
	return e.ended(ctx, w, path, err)
}

// records are those that count, as a source.
func (e *exporting) records(ctx context.Context) export.Source {
	enough := errors.New("enough")
	return func(yield func(*store.Record, error) bool) {
		err := audit.Each(ctx, e.store, tasks.JobID(e.Job), func(r *store.Record) error {
			if !yield(r, nil) {
				return enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			e.broken = err
			yield(nil, err)
		}
	}
}

func (e *exporting) options() (export.Options, error) {
	filter, err := export.ParseFilter(e.Where...)
	return export.Options{Filter: filter, Fields: e.Fields, Limit: e.Limit, Counts: &e.counts, CreatedBy: "fetchfleet version " + Version()}, err
}

func (e *exporting) write(ctx context.Context, w io.Writer) error {
	o, err := e.options()
	if err != nil {
		return err
	}
	return export.Write(ctx, w, export.Format(e.Format), e.records(ctx), o)
}

// compression is the ending of a file name that asks for one.
func compression(path string) string {
	if ext := strings.ToLower(filepath.Ext(path)); ext == ".gz" || ext == ".zst" {
		return ext
	}
	return ""
}

// compressed writes through the compression that the file's name asks for.
func (e *exporting) compressed(ctx context.Context, w io.Writer) error {
	var z io.WriteCloser
	switch compression(e.Out) {
	case ".gz":
		z = gzip.NewWriter(w)
	case ".zst":
		var err error
		if z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)); err != nil {
			return err
		}
	default:
		return e.write(ctx, w)
	}
	return errors.Join(e.write(ctx, z), z.Close())
}

// stream writes to standard output, or to what is no regular file. A reader that goes away makes the write fail, where
// the system would end the process otherwise.
func (e *exporting) stream(ctx context.Context, w IO) (err error) {
	gone := make(chan os.Signal, 1)
	signal.Notify(gone, syscall.SIGPIPE)
	defer signal.Stop(gone)
	out := w.Stdout
	if e.Out != stdout {
		f, err := os.OpenFile(e.Out, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	buffered := bufio.NewWriterSize(out, 64<<10)
	if err := e.compressed(ctx, buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// ended says how it went.
func (e *exporting) ended(ctx context.Context, w IO, path string, err error) error {
	switch {
	case err != nil && ctx.Err() != nil:
		told := "what was written is not all of it"
		if path != "" {
			told = path + " is as it was"
		}
		return &exitError{code: ExitInterrupted, err: fmt.Errorf("interrupted: %s", told)}
	case e.broken != nil:
		return fmt.Errorf("export job %s: %w", e.Job, e.broken)
	case isBrokenPipe(err):
		return nil
	case err != nil:
		return fmt.Errorf("export job %s: %w", e.Job, err)
	case e.taken > 0:
		fmt.Fprintf(w.Stderr, "exported job %s to %s: %s as the store has them\n", e.Job, e.Out, plural(int64(e.taken), "file"))
	case path != "":
		fmt.Fprintf(w.Stderr, "exported %d of %s of job %s to %s\n", e.counts.Written.Load(), plural(e.counts.Read.Load(), "record"), e.Job, e.Out)
	}
	return nil
}

// display shows the figures every second until the returned function is called, where somebody looks and the records
// go elsewhere.
func (e *exporting) display(w IO) (hide func()) {
	if !isTerminal(w.Stderr) || e.Out == stdout && isTerminal(w.Stdout) {
		return func() {}
	}
	const clear = "\r\x1b[K" // ECMA-48
	ctx, cancel := context.WithCancel(context.Background())
	began, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done)
		every(ctx, time.Second, func() {
			read := e.counts.Read.Load()
			fmt.Fprintf(w.Stderr, "%s%s read, %d written, %.0f/s", clear, plural(read, "record"), e.counts.Written.Load(), float64(read)/time.Since(began).Seconds())
		})
	}()
	return func() {
		cancel()
		<-done
		fmt.Fprint(w.Stderr, clear)
	}
}
