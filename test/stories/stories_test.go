// Package stories tells what the three commands promise, as scripts that anyone can read: one file of testdata is one
// story. The commands are this test's own binary under their names, so the stories run what a user runs.
//
// Stories that need a Redis are skipped where there is no redis-server, and fail where CI=true.
package stories

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){
		"worker":  func() { os.Exit(cli.Worker(cli.OS())) },
		"enqueue": func() { os.Exit(cli.Enqueue(cli.OS())) },
		"fleet":   func() { os.Exit(cli.Fleet(cli.OS())) },
	})
}

// leakChecked fails when a test leaves a goroutine behind.
type leakChecked struct{ *testing.M }

func (m leakChecked) Run() int {
	code := m.M.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		_, _ = os.Stderr.WriteString("goroutines left behind: " + err.Error() + "\n")
		return 1
	}
	return 0
}

func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               setup,
		Condition:           condition,
		Cmds:                commands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_STORIES") != "",
	})
}
