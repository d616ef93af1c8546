package filestore

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// The folders of a job.
const (
	accountsFolder = "accounts"
	recordsFolder  = "records"
	bodiesFolder   = "bodies"
	partsFolder    = "parts"
	tmpFolder      = "tmp"
)

// The endings of temporary names. A records file and its account differ in the ending alone: Sweep relies on it.
const (
	tmpBody    = ".body"
	tmpSpill   = ".spill"
	tmpAccount = ".account"
	tmpRecords = ".records"
)

const sep = string(filepath.Separator)

func (s *Store) jobPath(job, folder string) string { return s.dir + sep + job + sep + folder }

func (s *Store) tmpPath(job, name string) string {
	return s.dir + sep + job + sep + tmpFolder + sep + name
}

func (s *Store) accountPath(job, unit string) string {
	return s.dir + sep + job + sep + accountsFolder + sep + unit + ".json"
}

func (s *Store) recordsPath(job, unit string) string {
	return s.dir + sep + job + sep + recordsFolder + sep + unit + ".jsonl"
}

// bodyName returns the Body field of a record: slashes on every system.
func bodyName(sha, ext string) string { return bodiesFolder + "/" + sha[:2] + "/" + sha + "." + ext }

func (s *Store) bodyPath(job, body string) string {
	return s.dir + sep + job + sep + filepath.FromSlash(body)
}

// folderOf is filepath.Dir of a path that was built here, without its copies.
func folderOf(path string) string { return path[:strings.LastIndexByte(path, filepath.Separator)] }

func checkNames(job, unit string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("unit", unit)
}

// checkBody refuses a body name that this driver would not have made, so that no record can point outside its job.
func checkBody(body string) error {
	rest, ok := strings.CutPrefix(body, bodiesFolder+"/")
	folder, name, two := strings.Cut(rest, "/")
	if ok && two && len(folder) == 2 && store.CheckName("body", folder) == nil && store.CheckName("body", name) == nil || checkPath(body) {
		return nil
	}
	return fmt.Errorf("body name %.80q is not of the form bodies/ab/NAME or bodies/HOST/PATH: %w", body, store.ErrRecord)
}

// maxDepth is the most folders that there are between the folder of bodies and a body.
const maxDepth = 40
