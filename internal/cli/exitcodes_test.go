package cli

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestTheReadmeHasTheExitCodesOfEveryHelp(t *testing.T) {
	data, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), "\n## Exit codes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	all, worker, found := strings.Cut(section, "Those of `worker`")
	if !found {
		t.Fatalf("the section says nothing of worker:\n%s", section)
	}
	code := regexp.MustCompile(`(?:^|[:;]\s+)(\d+) `)
	for help, tt := range map[string]struct{ help, table string }{
		"worker --help": {workerHelp, worker},
		"fleet --help":  {exitHelp, all},
	} {
		_, codes, _ := strings.Cut(tt.help, "Exit codes")
		numbers := code.FindAllStringSubmatch(codes, -1)
		if len(numbers) < 4 {
			t.Errorf("%s has %d exit codes: %q", help, len(numbers), codes)
		}
		if rows := strings.Count(tt.table, "\n| ") - 2; rows != len(numbers) {
			t.Errorf("%s has %d exit codes, the README has %d", help, len(numbers), rows)
		}
		for _, n := range numbers {
			if !strings.Contains(tt.table, fmt.Sprintf("\n| %s | ", n[1])) {
				t.Errorf("exit code %s of %s is not in the README", n[1], help)
			}
		}
	}
}
