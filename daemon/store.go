// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// store is the state directory: small files, each written whole and then put in
// place, and a lock that a second daemon finds taken.
type store struct {
	dir  string
	lock *os.File
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	lock, err := claim(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, "--state-dir")
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, lock: lock}
	if err := s.clear(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// clear removes the files that a daemon was killed over before they were in place.
func (s *store) clear() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "*"+unfinished+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return fmt.Errorf("clear the state directory: %w", err)
	}
	return nil
}

// unfinished is in the name of a file that is not in place yet.
const unfinished = ".new-"

// close gives the lock up.
func (s *store) close() error { return s.lock.Close() }

// read fills v from a file; one that is missing leaves v alone.
func (s *store) read(name string, v any) error {
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(s.dir, name), err)
	}
	return nil
}

// write replaces a file; after a crash of the host there is the old one or the new one.
func (s *store) write(name string, v any) error { return s.replace(name, v, true) }

// note replaces a file that no other depends on; after a crash of the host it may
// be torn, after a kill of the daemon it is not.
func (s *store) note(name string, v any) error { return s.replace(name, v, false) }

func (s *store) replace(name string, v any, sync bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", filepath.Join(s.dir, name), err)
		}
	}()
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, name+unfinished+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(s.dir, name)); err != nil || !sync {
		return err
	}
	return s.sync()
}

func (s *store) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
