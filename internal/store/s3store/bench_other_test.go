//go:build !unix

package s3store

import "time"

func cpuTime() time.Duration { return 0 }
