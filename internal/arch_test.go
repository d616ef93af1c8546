package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fetchfleet/fetchfleet/"

// source is one file that is built into a program, for whatever system.
type source struct {
	path    string // "internal/tasks/batch.go"
	pkg     string // "internal/tasks"
	lines   int
	imports []string // those of this module without its path: "internal/tasks"
	file    *ast.File
}

// sources parses all files but tests and what is not of this module.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() && path != ".": // a module of its own
			if _, err := fs.Stat(root, path+"/go.mod"); err == nil {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		data, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, data, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{path: path, pkg: filepath.ToSlash(filepath.Dir(path)), lines: strings.Count(string(data), "\n"), file: file}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, strings.TrimPrefix(name, module))
		}
		out = append(out, s)
		return nil
	})
	if err != nil || len(out) < 50 {
		t.Fatalf("%d files parsed, %v", len(out), err)
	}
	return out
}

// within reports whether a package is one of these, or below one.
func within(pkg string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool { return pkg == tree || strings.HasPrefix(pkg, tree+"/") })
}

// rules say which imports are not allowed where. The reason is what somebody who breaks one gets to read.
var rules = []struct {
	where  []string // trees
	except []string
	not    []string // trees
	reason string
}{
	{where: []string{"internal/tasks"}, except: []string{"internal/tasks/worker"}, not: []string{"internal/fetch", "internal/store"},
		reason: "tasks knows what is to be done, not how bytes come or where they rest; the batch handler in tasks/worker is the one place where all meet"},
	{where: []string{"internal/fetch"}, not: []string{"internal/tasks", "internal/store", "internal/hosts"},
		reason: "fetch knows how to get bytes and nothing of queues, storage or politeness"},
	{where: []string{"internal/store"}, not: []string{"internal/tasks", "internal/fetch", "internal/hosts"},
		reason: "store knows where bytes come to rest and nothing of queues or fetching"},
	{where: []string{"internal/store"}, except: []string{"internal/store/s3store"}, not: []string{"net/http"},
		reason: "store knows nothing of HTTP; s3store alone speaks it to its server, and needs its transport for timeouts"},
	{where: []string{"internal/tasks/worker"}, not: []string{"internal/store/filestore", "internal/store/jsonl", "internal/store/open", "internal/store/pgstore", "internal/store/s3store", "internal/store/several", "internal/store/warcstore", "internal/store/warcunit"},
		reason: "the worker works with any store; which one is chosen by the command"},
	{where: []string{"internal", "cmd"}, except: []string{"internal/tasks", "internal/admin", "internal/cli", "internal/audit"},
		not: []string{"github.com/hibiken/asynq"}, reason: "asynq stays behind internal/tasks, so that an upgrade is read there and nowhere else"},
	{where: []string{"internal", "cmd"}, except: []string{"internal/tasks/embedded"}, not: []string{"github.com/alicebob/miniredis/v2"},
		reason: "the embedded Redis has promises of its own; start it through internal/tasks/embedded"},
	{where: []string{"internal/tasks"}, except: []string{"internal/tasks/worker"}, not: []string{"net/http"},
		reason: "what is to be done is no HTTP yet"},
	{where: []string{"internal"}, except: []string{"internal/cli"}, not: []string{"internal/cli", "internal/admin"},
		reason: "commands are made of packages, not the other way round"},
	{where: []string{"cmd"}, not: []string{"internal/tasks", "internal/fetch", "internal/store", "internal/hosts", "internal/admin", "internal/audit"},
		reason: "a main calls internal/cli, where it can be tested"},
	{where: []string{"internal", "cmd"}, except: []string{"internal/disktest", "internal/politetest", "internal/redistest", "internal/fetch/fetchtest", "internal/store/pgstore/pgtest", "internal/store/s3store/s3test", "internal/store/storetest", "internal/tasks/taskstest"},
		not:    []string{"testing", "internal/disktest", "internal/politetest", "internal/redistest", "internal/fetch/fetchtest", "internal/store/pgstore/pgtest", "internal/store/s3store/s3test", "internal/store/storetest", "internal/tasks/taskstest"},
		reason: "what is made for tests is not built into programs"},
	{where: []string{"internal", "cmd"}, not: []string{"log", "log/slog"}, reason: "logs are structured and go through zerolog"},
}

func TestImportsGoInTheDirectionsDecided(t *testing.T) {
	all := sources(t)
	for _, rule := range rules {
		for _, s := range all {
			if !within(s.pkg, rule.where...) || within(s.pkg, rule.except...) {
				continue
			}
			for _, name := range s.imports {
				if within(name, rule.not...) {
					t.Errorf("%s imports %s: %s", s.path, name, rule.reason)
				}
			}
		}
	}
}

// A rule about a tree that is no more would pass for ever.
func TestRulesAreAboutPackagesThatAreThere(t *testing.T) {
	packages := map[string]bool{}
	for _, s := range sources(t) {
		for pkg := s.pkg; pkg != "."; pkg = filepath.ToSlash(filepath.Dir(pkg)) {
			packages[pkg] = true
		}
	}
	named := slices.Clone(leaves)
	for _, rule := range rules {
		named = append(named, slices.Concat(rule.where, rule.except)...)
		named = append(named, slices.DeleteFunc(slices.Clone(rule.not), func(p string) bool { return !within(p, "internal", "cmd") })...)
	}
	for _, name := range named {
		if !packages[name] {
			t.Errorf("%s is not there: known are %q", name, slices.Sorted(maps.Keys(packages)))
		}
	}
}

// leaves import nothing of ours: each can be read, tested and replaced alone.
var leaves = []string{
	"internal/canon", "internal/charset", "internal/coding", "internal/demosite", "internal/disktest", "internal/fetch/balance",
	"internal/fetch/happy", "internal/fetch/names", "internal/hosts", "internal/metrics", "internal/politetest",
	"internal/progress", "internal/redistest", "internal/store", "internal/tasks", "internal/tasks/asynqkeys",
	"internal/secrets",
	"internal/cookies",
	"internal/payload", "internal/rows",
	"internal/tasks/embedded", "internal/tasks/faults", "internal/tasks/redisconn",
}

func TestLeavesImportNothingOfOurs(t *testing.T) {
	for _, s := range sources(t) {
		for _, name := range s.imports {
			if slices.Contains(leaves, s.pkg) && within(name, "internal", "cmd") {
				t.Errorf("%s imports %s: %s is a leaf, which can be read and tested alone", s.path, name, s.pkg)
			}
		}
	}
}

// A key that two packages write has two owners, and an upgrade of its layout forgets one of them.
func TestKeysHaveOneOwner(t *testing.T) {
	owners := map[string]string{"asynq:{": "internal/tasks/asynqkeys", "fetchfleet:{": "internal/tasks/ledger"}
	found := map[string]bool{}
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			for key, owner := range owners {
				if strings.Contains(lit.Value, key) {
					found[key] = true
					if within(s.pkg, "internal") && s.pkg != owner {
						t.Errorf("%s names the key %s: only %s does", s.path, lit.Value, owner)
					}
				}
			}
			return true
		})
	}
	if len(found) != len(owners) {
		t.Errorf("found only %v", found)
	}
}

func TestMainsAreShort(t *testing.T) {
	mains := 0
	for _, s := range sources(t) {
		if !within(s.pkg, "cmd") {
			continue
		}
		mains++
		if s.lines >= 40 {
			t.Errorf("%s has %d lines: what a command does belongs into internal/cli", s.path, s.lines)
		}
	}
	if mains != 3 {
		t.Errorf("%d files below cmd, want one for each of three commands", mains)
	}
}

func TestNothingHappensBeforeMain(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init: make it part of a constructor", s.path)
			}
		}
	}
}

func TestEveryPackageSaysWhatItPromises(t *testing.T) {
	says := map[string]bool{}
	for _, s := range sources(t) {
		says[s.pkg] = says[s.pkg] || s.file.Doc != nil
	}
	for pkg, ok := range says {
		if !ok {
			t.Errorf("package %s has no comment", pkg)
		}
	}
}

func TestFilesHoldOneIdea(t *testing.T) {
	const limit = 450
	for _, s := range sources(t) {
		if s.lines >= limit {
			t.Errorf("%s has %d lines: split it by its ideas (limit %d)", s.path, s.lines, limit)
		}
	}
}
