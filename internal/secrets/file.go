package secrets

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file reads a file of an allowed folder, at most once a second.
func (s *Source) file(r Ref) (string, error) {
	s.mu.Lock()
	kept, ok := s.files[r.Name]
	s.mu.Unlock()
	now := s.opts.Now()
	if ok && now.Sub(kept.at) < fresh {
		return kept.value, nil
	}
	value, err := s.readFile(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.files, r.Name)
		return "", err
	}
	if len(s.files) >= maxKnown {
		clear(s.files)
	}
	s.files[r.Name] = read{value: value, at: now}
	return value, nil
}

// readFile looks for a file where it may be: below an allowed folder, to which a path that is not absolute is relative.
func (s *Source) readFile(r Ref) (string, error) {
	name := filepath.FromSlash(r.Name)
	if s.own[r] {
		return readOwn(name)
	}
	err := fmt.Errorf("%w: --secret-dir allows %s", ErrRefused, strings.Join(s.opts.Dirs, ", "))
	for _, dir := range s.opts.Dirs {
		rel := filepath.Clean(name)
		if filepath.IsAbs(name) {
			if rel, _ = filepath.Rel(dir, rel); rel == "" {
				continue
			}
		}
		if !filepath.IsLocal(rel) || rel == "." {
			continue
		}
		var value string
		if value, err = readBelow(dir, rel); err == nil || !errors.Is(err, ErrMissing) {
			return value, err
		}
	}
	return "", err
}

// readBelow reads a file of a folder. os.Root follows links within the folder and refuses those that lead out of it.
func readBelow(dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", trouble(err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(name)
	if err == nil {
		err = readable(info)
	}
	if err != nil {
		return "", trouble(err)
	}
	f, err := root.Open(name)
	if err != nil {
		return "", trouble(err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return "", trouble(err)
	}
	return trim(string(data)), nil
}

// readOwn reads a file wherever it is: the operator named it himself.
func readOwn(name string) (string, error) {
	info, err := os.Stat(name)
	if err == nil {
		err = readable(info)
	}
	if err != nil {
		return "", trouble(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", trouble(err)
	}
	return trim(string(data)), nil
}

func readable(info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular(): // to open a pipe would wait for who writes to it
		return errors.New("it is no file")
	case info.Size() > MaxSize:
		return fmt.Errorf("it is larger than %d KiB", MaxSize>>10)
	}
	return nil
}

// trouble is an error of the file system without the path, which the reference tells.
func trouble(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no such file", ErrMissing)
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
