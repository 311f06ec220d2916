// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// follow goes on from s, the newest file, which is nil when there is none yet.
// s itself belongs to the caller.
func (r *reader) follow(s *source) error {
	var mine []*source
	defer func() { closeAll(mine) }()
	tick := time.NewTicker(r.o.Poll)
	defer tick.Stop()
	for {
		moved := s == nil || s.moved(r.dir) // looked at first: nothing is added to s after it is true
		if s != nil {
			if err := r.deliverGrown(s); err != nil {
				return err
			}
		}
		if moved {
			next, err := r.after(s)
			if err != nil {
				return err
			}
			if len(next) > 0 {
				closeAll(mine)
				mine = next
			}
			for _, s = range next {
				if err := r.deliver(s); err != nil {
					return err
				}
			}
		}
		if err := r.idle(); err != nil {
			return err
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-tick.C:
		}
	}
}

func (r *reader) idle() error {
	if r.o.Idle == nil {
		return nil
	}
	return r.o.Idle()
}

// moved says whether another file has taken the place of s.
func (s *source) moved(dir string) bool {
	named, err := os.Stat(currentPath(dir))
	if err != nil {
		return false // between two files
	}
	info, err := s.f.Stat()
	return err == nil && !os.SameFile(named, info)
}

// deliverGrown delivers what is new; a file that is shorter than what was read
// of it was emptied, and is new from its beginning.
func (r *reader) deliverGrown(s *source) error {
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("examine the log: %w", err)
	}
	if info.Size() < s.at {
		s.at = 0
	}
	return r.deliver(s)
}

// after opens the files that follow s. The caller closes them.
func (r *reader) after(s *source) ([]*source, error) {
	known := r.newest
	files, err := r.openFiles()
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil || s == nil {
		return files, err
	}
	for i, f := range files {
		if f.same(s) {
			closeAll(files[:i+1])
			return files[i+1:], nil
		}
	}
	// s was removed, and so, maybe, were files after it.
	r.skip(s, s.at, errors.New("the file was removed while it was followed; events may be missing"))
	first := 0
	for first < len(files) && filepath.Base(files[first].path) != currentName && filepath.Base(files[first].path) <= known {
		first++
	}
	closeAll(files[:first])
	return files[first:], nil
}
