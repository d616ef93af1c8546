package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// grammars are the commands whose flags are documented, each made anew.
var grammars = []struct {
	name string
	make func() any
}{
	{"worker", func() any { return &workerCommand{} }},
	{"enqueue", func() any { return &enqueueCommand{} }},
	{"fleet run", func() any { return &runCommand{} }},
	{"fleet status", func() any { return &statusCommand{} }},
	{"fleet hosts", func() any { return &hostsCommand{} }},
	{"fleet audit", func() any { return &auditCommand{} }},
	{"fleet verify", func() any { return &verifyCommand{} }},
	{"fleet export", func() any { return &exportCommand{} }},
	{"fleet probe", func() any { return &probeCommand{} }},
	{"fleet monitor", func() any { return &monitorCommand{} }},
}

func parserOf(t *testing.T, name string, grammar any) *kong.Kong {
	t.Helper()
	parser, err := newParser(IO{Stdout: io.Discard, Stderr: io.Discard}, name, "", grammar, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// flagsOf are a command's own flags, without --help and --version.
func flagsOf(t *testing.T, name string, grammar any) []*kong.Flag {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(parserOf(t, name, grammar).Model.Flags), func(f *kong.Flag) bool {
		return f.Name == "help" || f.Name == "version"
	})
}

// others are values for flags that do not take just any text.
var others = map[string]string{
	"queue": "low", "host-rate": "2.5", "host-burst": "3", "host-conns": "7", "retries": "9", "backoff": "base=3s",
	"retry-on": "404", "patience": "7m", "timeout": "8s", "max-time": "9m", "max-body": "5MiB", "resume-above": "6MiB", "robots": "ignore",
	"connect-timeout": "1s", "tls-timeout": "2s", "idle-timeout": "3s", "method-timeout": "POST=4s", "min-speed": "5KiB/s", "min-speed-time": "6s",
	"max-ratio": "7", "max-redirects": "8", "max-url": "1KiB", "max-headers": "9KiB", "accept": "text/html", "range": "0-9", "ports": "80-90",

	"header": "X-A: b", "visits": "11", "concurrency": "12", "allow-private": "10.0.0.0/8", "drain-timeout": "13s",
	"retry-after-cap": "14m", "sync": "off", "log-level": "error", "log-format": "console", "tries": "4", "bodies": "5%", "names": "path", "sort": "rate", "queues": "low=2", "store": "elsewhere",
	"dns-ttl": "7s", "ip": "4", "source-address": "127.0.0.1", "max-conns": "15", "max-conns-per-host": "16", "max-waiting": "17", "max-idle-conns": "18",
	"max-idle-per-host": "19", "idle-conn-timeout": "20s", "conn-lifetime": "21s", "tcp-keepalive": "22s", "http2-ping": "23s",
	"format": "csv", "where": "url~a,b", "fields": "url,status", "limit": "12",
}

func TestEveryFlagIsAVariableOfTheSameSpelling(t *testing.T) {
	for _, g := range grammars {
		for _, f := range flagsOf(t, g.name, g.make()) {
			want := "FLEET_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if len(f.Envs) != 1 || f.Envs[0] != want {
				t.Errorf("%s --%s: variables %v, want %s", g.name, f.Name, f.Envs, want)
				continue
			}
			t.Run(g.name+" "+want, func(t *testing.T) { checkVariable(t, g.name, g.make, f) })
		}
	}
}

// checkVariable parses a command with a flag given both ways and compares what comes of it.
func checkVariable(t *testing.T, name string, grammar func() any, f *kong.Flag) {
	value := others[f.Name]
	if value == "" {
		value = "other"
	}
	args := []string{"--" + f.Name + "=" + value}
	if f.IsBool() {
		value, args = "true", []string{"--" + f.Name}
	}
	var rest []string
	if f.Name != "store" && (name == "worker" || name == "fleet audit" || name == "fleet verify" || name == "fleet export") {
		rest = append(rest, "--store=s")
	}
	if f.Name == "fields" {
		rest = append(rest, "--format=csv")
	}
	if name == "fleet status" || name == "fleet hosts" || name == "fleet audit" || name == "fleet verify" || name == "fleet export" {
		rest = append(rest, "job")
	}
	if name == "fleet probe" {
		rest = append(rest, "https://x.test")
	}
	byFlag, byEnv, without := grammar(), grammar(), grammar()
	for _, p := range []struct {
		into any
		args []string
		env  string
	}{{byFlag, append(args, rest...), ""}, {byEnv, rest, value}, {without, rest, ""}} {
		if p.env != "" {
			t.Setenv(f.Envs[0], p.env)
		} else {
			os.Unsetenv(f.Envs[0])
		}
		needed := p.into != without || !f.Required
		if _, err := parserOf(t, name, p.into).Parse(p.args); err != nil && needed {
			t.Fatalf("%v with %s=%q: %v", p.args, f.Envs[0], p.env, err)
		}
	}
	if diff := cmp.Diff(byFlag, byEnv); diff != "" {
		t.Errorf("the flag and the variable differ (-flag +variable):\n%s", diff)
	}
	if cmp.Equal(byEnv, without) {
		t.Errorf("%s=%s changes nothing", f.Envs[0], value)
	}
}

func TestTheFlagsInTheReadmeAreThoseOfHelp(t *testing.T) {
	const begin, end = "<!-- flags: made by a test, see internal/cli/flags_test.go -->\n", "<!-- end of flags -->\n"
	path := "../../README.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no region of flags", path)
	}
	want := flagTables(t)
	if got == want {
		return
	}
	if os.Getenv("UPDATE_README") != "" {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the flags differ, write them anew with UPDATE_README=1 (-readme +help):\n%s", cmp.Diff(got, want))
}

// flagTables are the README's tables: policy and worker flags once, and then what each command has besides.
func flagTables(t *testing.T) string {
	var text strings.Builder
	run := flagsOf(t, "fleet run", &runCommand{})
	table(&text, "Policy of a job: `enqueue`, `fleet run`, `fleet demo`", inGroup(run, "Policy"))
	table(&text, "Authentication of a job: `enqueue`, `fleet run`, `fleet demo`", inGroup(run, "Authentication"))
	table(&text, "How a worker works: `worker`, `fleet run`, `fleet demo`", inGroup(run, "Worker"))
	for _, g := range grammars {
		table(&text, "`"+g.name+"` besides", inGroup(flagsOf(t, g.name, g.make()), ""))
	}
	return text.String()
}

func inGroup(flags []*kong.Flag, group string) (in []*kong.Flag) {
	for _, f := range flags {
		if f.Group == nil && group == "" || f.Group != nil && f.Group.Key == group {
			in = append(in, f)
		}
	}
	return in
}

func table(w io.Writer, title string, flags []*kong.Flag) {
	fmt.Fprintf(w, "\n| %s | |\n| --- | --- |\n", title)
	for _, f := range flags {
		short := ""
		if f.Short != 0 {
			short = "`-" + string(f.Short) + "` "
		}
		fmt.Fprintf(w, "| %s`--%s` | %s |\n", short, f.Name, f.Help)
	}
}
