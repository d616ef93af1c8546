package secrets_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/secrets"
)

func source(t *testing.T, o secrets.Options) *secrets.Source {
	t.Helper()
	if o.Lookup == nil {
		o.Lookup = func(name string) (string, bool) {
			v, ok := map[string]string{"FLEET_SECRET_KEY": "k-e-y-1", "FLEET_SECRET_NONE": "", "AWS_KEY": "not-yours"}[name]
			return v, ok
		}
	}
	s, err := secrets.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReferencesAreReplacedByTheirValues(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "t-o-k\r\n")
	write(t, filepath.Join(dir, "two-lines"), "a\nb\n\n")
	s := source(t, secrets.Options{Dirs: []string{dir}})
	for claim, c := range map[string]struct{ text, want string }{
		"a text without any stays":           {"Bearer $HOME {x} $", "Bearer $HOME {x} $"},
		"a variable":                         {"Bearer ${env:FLEET_SECRET_KEY}!", "Bearer k-e-y-1!"},
		"a file, without its last line end":  {"${file:" + dir + "/token}", "t-o-k"},
		"a path relative to the folder":      {"${file:token}", "t-o-k"},
		"one line end only goes":             {"${file:two-lines}", "a\nb\n"},
		"several, and what stands between":   {"${env:FLEET_SECRET_KEY}:${file:token}", "k-e-y-1:t-o-k"},
		"a literal is written with a dollar": {"$${env:X} ${env:FLEET_SECRET_KEY}", "${env:X} k-e-y-1"},
		"dollars before a literal stay":      {"$$${x", "$${x"},
	} {
		t.Run(claim, func(t *testing.T) {
			got, err := s.Resolve(c.text)
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestWhatCannotBeResolvedIsNamedAndNotShown(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "x"), "hidden-value")
	write(t, filepath.Join(dir, "large"), strings.Repeat("hidden-value", 6000))
	write(t, filepath.Join(dir, "empty"), "\n")
	s := source(t, secrets.Options{Dirs: []string{dir}})
	for claim, c := range map[string]struct {
		text, says string
		is         error
	}{
		"a variable that is not allowed":      {"${env:AWS_KEY}", "secret ${env:AWS_KEY}: this worker may not", secrets.ErrRefused},
		"a variable that is not there":        {"${env:FLEET_SECRET_GONE}", "no such variable", secrets.ErrMissing},
		"an empty variable":                   {"${env:FLEET_SECRET_NONE}", "empty", secrets.ErrMissing},
		"a file that is not there":            {"${file:gone}", "no such file", secrets.ErrMissing},
		"an empty file":                       {"${file:empty}", "empty", secrets.ErrMissing},
		"a file elsewhere":                    {"${file:" + outside + "/x}", "--secret-dir", secrets.ErrRefused},
		"a way out of the folder":             {"${file:../" + filepath.Base(outside) + "/x}", "--secret-dir", secrets.ErrRefused},
		"a way out in an absolute path":       {"${file:" + dir + "/../" + filepath.Base(outside) + "/x}", "--secret-dir", secrets.ErrRefused},
		"the folder itself":                   {"${file:.}", "--secret-dir", secrets.ErrRefused},
		"a file that is too large":            {"${file:large}", "larger than 64 KiB", nil},
		"a reference without an end":          {"hidden-value ${env:X", "after 13 characters", nil},
		"a kind that there is not":            {"${hidden-value}", "neither with env: nor with file:", nil},
		"one that names nothing":              {"${env:}", "names nothing", nil},
		"a second one after a good one fails": {"${env:FLEET_SECRET_KEY}${env:AWS_KEY}", "AWS_KEY", secrets.ErrRefused},
	} {
		t.Run(claim, func(t *testing.T) {
			got, err := s.Resolve(c.text)
			if err == nil || got != "" || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("%q, %v: want an error that says %q", got, err, c.says)
			}
			for _, value := range []string{"hidden-value", "not-yours", "k-e-y-1"} {
				if strings.Contains(err.Error(), value) {
					t.Errorf("the error tells the value: %v", err)
				}
			}
		})
	}
}

func TestLinksLeadNowhereButWithinTheFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege here")
	}
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "x"), "hidden-value")
	write(t, filepath.Join(dir, "real"), "inside")
	for name, target := range map[string]string{"out": filepath.Join(outside, "x"), "in": "real", "folder": outside} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := source(t, secrets.Options{Dirs: []string{dir}})
	if got, err := s.Resolve("${file:in}"); got != "inside" || err != nil {
		t.Errorf("a link within: %q, %v", got, err)
	}
	for _, text := range []string{"${file:out}", "${file:folder/x}"} {
		if got, err := s.Resolve(text); err == nil || strings.Contains(err.Error(), "hidden-value") {
			t.Errorf("%s: %q, %v: want an error", text, got, err)
		}
	}
}

func TestAFileIsReadAgainWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1, 0)
	s := source(t, secrets.Options{Dirs: []string{dir}, Now: func() time.Time { return now }})
	for _, want := range []string{"first", "second"} {
		write(t, filepath.Join(dir, "f"), want)
		now = now.Add(time.Second)
		if got, err := s.Resolve("${file:f}"); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

// On the command line of fleet run the caller names what is his; that opens nothing else.
func TestReferencesOfTheOperatorsOwnAreResolvedWhereverTheyAre(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write(t, path, "own")
	own := []secrets.Ref{{Kind: secrets.Env, Name: "AWS_KEY"}, {Kind: secrets.File, Name: path}}
	s := source(t, secrets.Options{Own: own, Dirs: []string{}})
	if got, err := s.Resolve("${env:AWS_KEY} ${file:" + path + "}"); got != "not-yours own" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.Resolve("${file:" + filepath.Join(dir, "g") + "}"); !errors.Is(err, secrets.ErrRefused) {
		t.Errorf("another file: %v", err)
	}
}

func TestTextsAreCleanedOfValuesHandedOut(t *testing.T) {
	s := source(t, secrets.Options{Lookup: func(string) (string, bool) { return `s3"c/ret`, true }})
	const text = `a s3"c/ret, {"x":"s3\"c/ret"} s3%22c%2Fret`
	if got := s.Redact(text); got != text {
		t.Errorf("before anything was handed out: %s", got)
	}
	if _, err := s.Resolve("${env:FLEET_SECRET_A}"); err != nil {
		t.Fatal(err)
	}
	const want = `a [secret], {"x":"[secret]"} [secret]`
	if got := s.Redact(text); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	basic := base64.StdEncoding.EncodeToString([]byte(`u:s3"c/ret`))
	s.Remember(basic)
	var log bytes.Buffer
	if n, err := s.Writer(&log).Write([]byte(basic + "\n")); n != len(basic)+1 || err != nil || log.String() != "[secret]\n" {
		t.Errorf("log: %q, %d, %v", log.String(), n, err)
	}
}

// The rest of the longer value would be shown if the shorter were replaced first.
func TestAValueThatBeginsAnotherDoesNotUncoverItsRest(t *testing.T) {
	s := source(t, secrets.Options{})
	s.Remember("pass")
	s.Remember("password")
	if got := s.Redact("password pass"); got != "[secret] [secret]" {
		t.Error(got)
	}
}

func TestUserAndPasswordAreCutOutsideOfReferences(t *testing.T) {
	for text, want := range map[string][2]string{
		"ada:${env:P}":           {"ada", "${env:P}"},
		"${env:U}:${file:/r/p}":  {"${env:U}", "${file:/r/p}"},
		"a$${:${env:P}":          {"a$${", "${env:P}"},
		":${env:P}":              {"", "${env:P}"},
		"${env:U}x:y:${env:P}:z": {"${env:U}x", "y:${env:P}:z"},
	} {
		user, password, ok := secrets.CutUser(text)
		if diff := cmp.Diff(want, [2]string{user, password}); diff != "" || !ok {
			t.Errorf("%s (%t):\n%s", text, ok, diff)
		}
	}
	for _, text := range []string{"ada", "${env:P}", "${env:P"} {
		if _, _, ok := secrets.CutUser(text); ok {
			t.Errorf("%s was cut", text)
		}
	}
}

func TestPatternsAndFoldersThatCannotBeAreRefused(t *testing.T) {
	for _, o := range []secrets.Options{{Env: []string{"[x"}}, {Env: []string{" "}}, {Dirs: []string{""}}} {
		if _, err := secrets.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// A text is a reference or resolves to itself, but for $${; and what is found is what is resolved.
func FuzzReferences(f *testing.F) {
	for _, seed := range []string{"", "a", "${env:A}", "$${env:A}", "${file:/a/b}x${env:B}", "$$${", "${", "${x:y}", "$", "a:${env:P}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var asked []secrets.Ref
		s := source(t, secrets.Options{Env: []string{"*"}, Dirs: []string{}, Lookup: func(name string) (string, bool) {
			asked = append(asked, secrets.Ref{Kind: secrets.Env, Name: name})
			return "value-of-it", true
		}})
		refs, err := secrets.Find(text)
		got, resolveErr := s.Resolve(text)
		switch {
		case err != nil && resolveErr == nil:
			t.Errorf("%q: found %v, resolved to %q", text, err, got)
		case err == nil && len(refs) == 0 && got != strings.ReplaceAll(text, "$${", "${"):
			t.Errorf("%q became %q", text, got)
		case resolveErr == nil && !cmp.Equal(refs, asked):
			t.Errorf("%q: found %v, asked for %v", text, refs, asked)
		}
		if user, password, ok := secrets.CutUser(text); ok && user+":"+password != text {
			t.Errorf("%q was cut into %q and %q", text, user, password)
		}
	})
}
