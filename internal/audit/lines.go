// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"io"
)

// maxLine bounds a line of the log, in bytes: an event's largest parts are two
// paths of 4096 bytes, each escaped up to six times its length.
const maxLine = 1 << 20

// errLineTooLong is returned once for a line over maxLine, which is skipped.
var errLineTooLong = errors.New("longer than 1 MiB")

// lineScanner reads lines from any offset, and never keeps an unfinished one:
// at the end of the file pos is the start of what is not yet a line, so the
// caller may try again when the file has grown.
type lineScanner struct {
	r   io.ReaderAt
	pos int64 // of the next line
	buf []byte
	at  int // of pos in buf
}

func newLineScanner(r io.ReaderAt, pos int64) *lineScanner {
	return &lineScanner{r: r, pos: pos}
}

// next returns the next whole line, without its newline, and its offset. The
// line is valid until the next call. io.EOF: no further whole line is there yet.
func (s *lineScanner) next() (line []byte, offset int64, err error) {
	offset = s.pos
	searched := 0
	for {
		rest := s.buf[s.at:]
		if i := bytes.IndexByte(rest[searched:], '\n'); i >= 0 {
			end := searched + i
			s.at += end + 1
			s.pos += int64(end) + 1
			if end > maxLine {
				return nil, offset, errLineTooLong
			}
			return rest[:end], offset, nil
		}
		searched = len(rest)
		if searched > maxLine {
			return nil, offset, s.skipLong(offset)
		}
		n, err := s.fill()
		if n == 0 {
			s.reset(s.pos)
			return nil, offset, err
		}
	}
}

// skipLong goes to the end of a line that is too long, without holding it.
func (s *lineScanner) skipLong(start int64) error {
	for {
		if i := bytes.IndexByte(s.buf[s.at:], '\n'); i >= 0 {
			s.at += i + 1
			s.pos += int64(i) + 1
			return errLineTooLong
		}
		s.pos += int64(len(s.buf) - s.at)
		s.at = len(s.buf)
		if n, err := s.fill(); n == 0 {
			s.reset(start)
			return err
		}
	}
}

// reset forgets what was read ahead.
func (s *lineScanner) reset(pos int64) { s.pos, s.buf, s.at = pos, s.buf[:0], 0 }

// fill reads more behind what is in the buffer.
func (s *lineScanner) fill() (int, error) {
	kept := copy(s.buf, s.buf[s.at:])
	from := s.pos + int64(kept)
	if want := kept + 64<<10; cap(s.buf) < want {
		s.buf = append(make([]byte, 0, max(want, 2*cap(s.buf))), s.buf[:kept]...)
	}
	n, err := s.r.ReadAt(s.buf[kept:cap(s.buf)], from)
	s.buf, s.at = s.buf[:kept+n], 0
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	return n, err
}
