// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"syscall"
	"time"
)

// Mark is a place in the log: between two lines.
type Mark struct {
	File   uint64 `json:"file"` // inode number of the log's file, whatever its name is by now
	Offset int64  `json:"offset"`

	// Told is how many events that were lost in the kernel the log tells of before
	// the mark, of those of the Writer that made it, by agent.
	Told map[string]uint64 `json:"-"`
}

// Mark returns the end of the log as it is. What is queued is behind it.
func (w *Writer) Mark() (Mark, error) {
	answer := make(chan Mark, 1)
	select {
	case w.marks <- answer:
	case <-w.done:
		return Mark{}, fmt.Errorf("mark the log: %w", os.ErrClosed)
	}
	return <-answer, nil
}

func (s *sink) mark() Mark {
	m := Mark{Offset: s.file.size, Told: maps.Clone(s.told)}
	if info, err := s.file.f.Stat(); err == nil {
		m.File = inode(info)
	}
	return m
}

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// Tail is what the log holds behind a mark.
type Tail struct {
	Events []Event   // all but actions, in order
	Ring   Ring      // of the last action
	Last   time.Time // of the last event; zero: there is none
}

// ReadTail reads what the log in dir holds behind a mark; all of it where the mark
// is in no file of it. A line that is no event is passed over.
func ReadTail(dir string, m Mark) (Tail, error) {
	var t Tail
	r := &reader{ctx: context.Background(), dir: dir}
	files, err := r.openFiles()
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	defer closeAll(files)
	for i, s := range files {
		if info, err := s.f.Stat(); err == nil && inode(info) == m.File && m.Offset <= info.Size() {
			s.at = m.Offset
			files = files[i:]
			break
		}
	}
	var action []byte // the last one
	for _, s := range files {
		if action, err = t.scan(s, action); err != nil {
			return t, err
		}
	}
	if ev, err := Decode(action); err == nil {
		t.Ring = ev.Ring
		t.see(ev)
	}
	return t, nil
}

// scan adds a file to the tail, and returns its last action's line, or the one
// before. Most lines are actions: they are not looked into.
func (t *Tail) scan(s *source, action []byte) ([]byte, error) {
	kind := []byte(`"kind":"action"`)
	for lines := newLineScanner(s.f, s.at); ; {
		line, _, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return action, nil
		case errors.Is(err, errLineTooLong):
			continue
		case err != nil:
			return action, fmt.Errorf("read the log: %w", err)
		}
		if bytes.Contains(line, kind) {
			action = append(action[:0], line...)
			continue
		}
		if ev, err := Decode(line); err == nil {
			t.Events = append(t.Events, ev)
			t.see(ev)
		}
	}
}

func (t *Tail) see(ev Event) {
	if ev.Time.After(t.Last) {
		t.Last = ev.Time
	}
}
