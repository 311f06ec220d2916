// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// logFile is the file that is appended to, and its rotation.
type logFile struct {
	dir   string
	group int   // gid, or -1 to leave it
	max   int64 // bytes at which it is rotated
	keep  int   // rotated files that stay
	f     *os.File
	size  int64
	first time.Time // of the first event in it; zero while it is empty
	torn  bool      // a line was cut short and could not be taken back

	retired sync.WaitGroup // rotated files that are being synced
}

// repair says what was found at the end of a file that a crash cut short.
type repair struct {
	removed    int64 // bytes of a torn line that were taken out
	terminated bool  // the last line was whole and lacked its newline
}

// open opens or creates the current file and repairs its end.
func (l *logFile) open() (repair, error) {
	f, err := os.OpenFile(currentPath(l.dir), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return repair{}, fmt.Errorf("open the log: %w", err)
	}
	l.f, l.first, l.torn = f, time.Time{}, false
	r, err := l.prepare()
	if err != nil {
		f.Close()
		l.f = nil
	}
	return r, err
}

func (l *logFile) prepare() (repair, error) {
	// The umask may have taken the group's right to read.
	if err := l.f.Chmod(0o640); err != nil {
		return repair{}, fmt.Errorf("set the log's mode: %w", err)
	}
	if l.group >= 0 {
		if err := l.f.Chown(-1, l.group); err != nil {
			return repair{}, fmt.Errorf("give the log to group %d: %w", l.group, err)
		}
	}
	info, err := l.f.Stat()
	if err != nil {
		return repair{}, fmt.Errorf("examine the log: %w", err)
	}
	l.size = info.Size()
	r, err := l.repair()
	if err != nil {
		return repair{}, fmt.Errorf("repair the log's end: %w", err)
	}
	if l.size > 0 {
		l.first = firstTime(l.f, info.ModTime())
	}
	return r, nil
}

// repair leaves the file empty or ending in a newline.
func (l *logFile) repair() (repair, error) {
	end, err := lastNewline(l.f, l.size)
	if err != nil || end == l.size {
		return repair{}, err
	}
	tail := make([]byte, min(l.size-end, maxLine))
	if _, err := l.f.ReadAt(tail, end); err != nil {
		return repair{}, err
	}
	if _, err := Decode(tail); err == nil && int64(len(tail)) == l.size-end {
		n, err := l.f.Write([]byte("\n"))
		l.size += int64(n)
		return repair{terminated: true}, err
	}
	r := repair{removed: l.size - end}
	if err := l.f.Truncate(end); err != nil {
		return repair{}, err
	}
	l.size = end
	return r, nil
}

// lastNewline returns the offset after the last newline before size, or 0.
func lastNewline(r io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(buf)))
		chunk := buf[:end-start]
		if _, err := r.ReadAt(chunk, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(chunk, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// firstTime is the time of a file's first event, or fallback.
func firstTime(r io.ReaderAt, fallback time.Time) time.Time {
	s := newLineScanner(r, 0)
	line, _, err := s.next()
	if err != nil {
		return fallback
	}
	if ev, err := Decode(line); err == nil {
		return ev.Time
	}
	return fallback
}

// moved says whether the path no longer names the open file, and takes
// over a size that someone else changed.
func (l *logFile) moved() bool {
	named, err := os.Stat(currentPath(l.dir))
	if err != nil {
		return true
	}
	mine, err := l.f.Stat()
	if err != nil {
		return false
	}
	if !l.torn {
		l.size = mine.Size()
	}
	return !os.SameFile(named, mine)
}

// append writes the lines that text consists of, and returns how many of them
// are in the file. What was written of the next one is taken back.
func (l *logFile) append(text []byte, lines []line, first time.Time) (int, error) {
	if l.torn {
		if err := l.takeBack(l.size); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(text)
	whole := 0
	for whole < len(lines) && lines[whole].end <= n {
		whole++
	}
	kept := int64(0)
	if whole > 0 {
		kept = int64(lines[whole-1].end)
		if l.size == 0 {
			l.first = first
		}
	}
	l.size += kept
	if int64(n) > kept {
		if back := l.takeBack(l.size); back != nil {
			err = errors.Join(err, back)
		}
	}
	if err != nil {
		return whole, fmt.Errorf("write the log: %w", err)
	}
	return whole, nil
}

func (l *logFile) takeBack(size int64) error {
	err := l.f.Truncate(size)
	l.torn = err != nil
	if err != nil {
		return fmt.Errorf("take back half a line: %w", err)
	}
	return nil
}

// rotate moves the current file aside and starts another.
func (l *logFile) rotate() error {
	names, err := rotatedFiles(l.dir)
	if err != nil {
		return err
	}
	if err := os.Rename(currentPath(l.dir), filepath.Join(l.dir, l.nextName(names))); err != nil {
		return fmt.Errorf("rotate the log: %w", err)
	}
	old := l.f
	if _, err := l.open(); err != nil {
		// The old file is still whole: go on in it, under its new name.
		l.f = old
		return fmt.Errorf("rotate the log: %w", err)
	}
	// Syncing 64 MiB takes longer than the queue can wait.
	l.retired.Go(func() { _ = syncClose(old) })
	return l.prune(names)
}

func syncClose(f *os.File) error {
	return errors.Join(f.Sync(), f.Close())
}

// nextName keeps the names in the order of writing even when the clock went
// back: a name is never before the one of the file before it.
func (l *logFile) nextName(names []string) string {
	t := l.first
	if len(names) > 0 {
		if last, _ := rotatedTime(names[len(names)-1]); !t.After(last) {
			t = last.Add(1)
		}
	}
	return rotatedName(t)
}

// prune removes the oldest of names so that keep stay, with the one just added.
func (l *logFile) prune(names []string) error {
	for len(names) >= max(l.keep, 1) {
		if err := os.Remove(filepath.Join(l.dir, names[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the oldest log: %w", err)
		}
		names = names[1:]
	}
	return nil
}
