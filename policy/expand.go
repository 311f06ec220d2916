// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// ErrTooManyPaths is the error of an expansion that found more than it may.
var ErrTooManyPaths = errors.New("too many paths match")

// Expand returns the paths under a root file system (os.DirFS("/"), or a test's)
// that a LandlockPath matches now, absolute and in the order of the directories,
// at most limit of them. Links are not followed, as rules are about what links
// lead to; what can't be read is taken for absent.
func (p *LandlockPath) Expand(root fs.FS, limit int) ([]string, error) {
	e := expansion{root: root, limit: limit}
	if err := e.walk(".", p.Components); err != nil {
		return nil, fmt.Errorf("expand pattern: %w", err)
	}
	return e.found, nil
}

type expansion struct {
	root  fs.FS
	limit int
	found []string
}

// walk expands the components left below a path that exists.
func (e *expansion) walk(at string, left []PathComponent) error {
	if len(left) == 0 {
		if len(e.found) == e.limit {
			return ErrTooManyPaths
		}
		e.found = append(e.found, path.Join("/", at))
		return nil
	}
	c, rest := left[0], left[1:]
	if c.Literal {
		info, err := fs.Lstat(e.root, path.Join(at, c.Name))
		if err != nil || len(rest) > 0 && !info.IsDir() {
			return nil // absent, or not to be passed through
		}
		return e.walk(path.Join(at, c.Name), rest)
	}
	if c.AnyDepth {
		if err := e.walk(at, rest); err != nil {
			return err
		}
	}
	return e.entries(at, c, left)
}

// entries goes on with each entry of a directory that a wildcard matches.
func (e *expansion) entries(at string, c PathComponent, left []PathComponent) error {
	entries, err := fs.ReadDir(e.root, at)
	if err != nil {
		return nil // absent, no directory, or unreadable
	}
	next := left[1:]
	if c.AnyDepth {
		next = left
	}
	for _, entry := range entries {
		if !c.Match(entry.Name()) || len(next) > 0 && !entry.IsDir() {
			continue
		}
		if err := e.walk(path.Join(at, entry.Name()), next); err != nil {
			return err
		}
	}
	return nil
}
