// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// All as ReadOptions.Last reads the log from its beginning.
const All = -1

// ReadOptions say what Read reads.
type ReadOptions struct {
	Filter Filter
	Last   int           // of the events that are there, only so many of the selected, the newest; or All
	Follow bool          // go on with the events to come, until the context is done
	Poll   time.Duration // how often to look for them; 100 ms

	// Idle, when not nil, is called while following, each time all that is there
	// has been visited: every Poll.
	Idle func() error
}

// Record is an event and the line it was read from.
type Record struct {
	Event Event
	Line  []byte // without the newline; valid until the callback returns
}

// Summary says what Read left out.
type Summary struct {
	Skipped  int     // lines that are not events
	Examples []error // why, for the first ten; each begins with file:line
}

// Read calls visit for each selected event of the log in dir, oldest first. A
// line that is no event is skipped and counted; an unfinished last line is left
// to be read when it is finished. With Follow it returns nil when the context
// is done; otherwise the context's error. An error of visit or Idle ends the
// reading and is returned.
func Read(ctx context.Context, dir string, o ReadOptions, visit func(Record) error) (Summary, error) {
	if o.Poll <= 0 {
		o.Poll = 100 * time.Millisecond
	}
	r := &reader{ctx: ctx, dir: dir, o: o, words: o.Filter.words(), visit: visit}
	err := r.run()
	if o.Follow && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return r.summary, err
}

type reader struct {
	ctx     context.Context
	dir     string
	o       ReadOptions
	words   [][][]byte
	visit   func(Record) error
	newest  string // name of the newest rotated file seen
	summary Summary
	lines   int
}

// source is an open file of the log.
type source struct {
	f    *os.File
	path string
	at   int64 // end of what was read
}

func (r *reader) run() error {
	files, err := r.openFiles()
	if err != nil {
		return err
	}
	defer closeAll(files)
	if r.o.Last == All {
		for i := range files {
			if !r.mayContain(files, i) {
				continue
			}
			if err := r.deliver(files[i]); err != nil {
				return err
			}
		}
	} else if err := r.deliverLast(files); err != nil {
		return err
	}
	if !r.o.Follow {
		return nil
	}
	return r.follow(newest(files))
}

func newest(files []*source) *source {
	if len(files) == 0 {
		return nil
	}
	return files[len(files)-1]
}

func closeAll(files []*source) {
	for _, s := range files {
		s.f.Close()
	}
}

// openFiles opens the log's files, oldest first. The current one is opened
// before the others are listed, so a rotation in between loses none.
func (r *reader) openFiles() (files []*source, err error) {
	current, err := openSource(currentPath(r.dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	if current != nil {
		files = append(files, current)
	}
	names, err := rotatedFiles(r.dir)
	if err != nil {
		return files, err
	}
	for _, name := range names {
		s, err := openSource(filepath.Join(r.dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // pruned just now
		}
		if err != nil {
			return files, err
		}
		if current != nil && current.same(s) {
			current.f.Close() // it was rotated just now
			files, current = files[1:], nil
		}
		files = append(files, s)
		r.newest = max(r.newest, name)
	}
	if current != nil {
		files = append(files[1:], current)
	}
	return files, nil
}

func openSource(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return &source{f: f, path: path}, nil
}

func (s *source) same(other *source) bool {
	a, errA := s.f.Stat()
	b, errB := other.f.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// mayContain says whether file i can hold events as new as the filter wants:
// the next file begins after it. The margin is for clocks that are set back.
func (r *reader) mayContain(files []*source, i int) bool {
	if i+1 >= len(files) {
		return true
	}
	next, ok := rotatedTime(filepath.Base(files[i+1].path))
	return !ok || !next.Add(10*time.Minute).Before(r.o.Filter.Since)
}

// scan calls f for each whole line from s.at on, and leaves s.at behind the last.
func (r *reader) scan(s *source, f func(line []byte, offset int64) error) error {
	lines := newLineScanner(s.f, s.at)
	for {
		line, offset, err := lines.next()
		s.at = lines.pos
		switch {
		case errors.Is(err, io.EOF):
			return r.ctx.Err()
		case errors.Is(err, errLineTooLong):
			r.skip(s, offset, err)
			continue
		case err != nil:
			return fmt.Errorf("read the log: %w", err)
		}
		if r.lines++; r.lines%1024 == 0 && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if err := f(line, offset); err != nil {
			return err
		}
	}
}

// deliver visits the selected events of what is new in a file.
func (r *reader) deliver(s *source) error {
	return r.scan(s, func(line []byte, offset int64) error {
		return r.handle(s, line, offset)
	})
}

func (r *reader) handle(s *source, line []byte, offset int64) error {
	ev, ok := r.selected(s, line, offset)
	if !ok {
		return nil
	}
	return r.visit(Record{ev, line})
}

func (r *reader) selected(s *source, line []byte, offset int64) (Event, bool) {
	if !mayMatch(line, r.words) {
		return Event{}, false
	}
	ev, err := Decode(line)
	if err != nil {
		r.skip(s, offset, err)
		return Event{}, false
	}
	return ev, r.o.Filter.Match(&ev)
}

// skip notes a line that is no event.
func (r *reader) skip(s *source, offset int64, err error) {
	r.summary.Skipped++
	if len(r.summary.Examples) < 10 {
		r.summary.Examples = append(r.summary.Examples, fmt.Errorf("%s:%d: %w", s.path, s.lineNumber(offset), err))
	}
}

// lineNumber counts from 1.
func (s *source) lineNumber(offset int64) int {
	n := 1
	buf := make([]byte, 64<<10)
	for at := int64(0); at < offset; {
		got, err := s.f.ReadAt(buf[:min(int64(len(buf)), offset-at)], at)
		n += bytes.Count(buf[:got], []byte("\n"))
		at += int64(got)
		if err != nil {
			break
		}
	}
	return n
}
