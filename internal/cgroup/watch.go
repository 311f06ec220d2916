// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher tells when something changes about cgroups: that they fill or empty.
type Watcher struct {
	inotify *os.File
	mu      sync.Mutex
	names   map[int32]string
}

// NewWatcher returns a watcher that watches nothing yet.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch cgroups: %w", err)
	}
	return &Watcher{inotify: os.NewFile(uintptr(fd), "inotify"), names: map[int32]string{}}, nil
}

// Watch adds a cgroup. The watch goes when the cgroup is removed.
func (w *Watcher) Watch(g *Group) error {
	raw, err := w.inotify.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch a cgroup: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var inner error
	err = raw.Control(func(fd uintptr) {
		var wd int
		if wd, inner = unix.InotifyAddWatch(int(fd), filepath.Join(g.Path, "cgroup.events"), unix.IN_MODIFY); inner == nil {
			w.names[int32(wd)] = filepath.Base(g.Path)
		}
	})
	if err := errors.Join(err, inner); err != nil {
		return fmt.Errorf("watch a cgroup: %w", err)
	}
	return nil
}

// Run calls changed with the name of each cgroup that changed, until Close.
func (w *Watcher) Run(changed func(name string)) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.inotify.Read(buffer)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch cgroups: %w", err)
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			wd := int32(binary.NativeEndian.Uint32(buffer[at:]))
			mask := binary.NativeEndian.Uint32(buffer[at+4:])
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buffer[at+12:]))
			w.mu.Lock()
			name, ok := w.names[wd]
			if mask&unix.IN_IGNORED != 0 {
				delete(w.names, wd)
				ok = false
			}
			w.mu.Unlock()
			if ok {
				changed(name)
			}
		}
	}
}

// Close ends Run.
func (w *Watcher) Close() error { return w.inotify.Close() }
