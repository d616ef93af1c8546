// Command enqueue puts lists of URLs into a job.
package main

import (
	"os"

	"github.com/fetchfleet/fetchfleet/internal/cli"
)

func main() { os.Exit(cli.Enqueue(cli.OS())) }
