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
	at  int  // of pos in buf
	end bool // the last read reached the end of the file
}

func newLineScanner(r io.ReaderAt, pos int64) *lineScanner {
	return &lineScanner{r: r, pos: pos}
}

// next returns the next whole line, without its newline, and its offset. The
// line is valid until the next call. io.EOF: no further whole line is there yet.
func (s *lineScanner) next() (line []byte, offset int64, err error) {
	offset = s.pos
	for searched := 0; ; {
		rest := s.buf[s.at:]
		if i := bytes.IndexByte(rest[searched:], '\n'); i >= 0 {
			line = rest[:searched+i]
			s.pass(len(line) + 1)
			if len(line) > maxLine {
				return nil, offset, errLineTooLong
			}
			return line, offset, nil
		}
		if searched = len(rest); searched > maxLine {
			return nil, offset, s.skipLong(offset)
		}
		if err := s.fill(); err != nil {
			s.reset(offset)
			return nil, offset, err
		}
	}
}

// skipLong goes to the end of a line that is too long, without holding it.
func (s *lineScanner) skipLong(start int64) error {
	for {
		if i := bytes.IndexByte(s.buf[s.at:], '\n'); i >= 0 {
			s.pass(i + 1)
			return errLineTooLong
		}
		s.pass(len(s.buf) - s.at)
		if err := s.fill(); err != nil {
			s.reset(start)
			return err
		}
	}
}

func (s *lineScanner) pass(n int) {
	s.at += n
	s.pos += int64(n)
}

// reset forgets what was read ahead.
func (s *lineScanner) reset(pos int64) { s.pos, s.buf, s.at, s.end = pos, s.buf[:0], 0, false }

// fill reads more behind what is in the buffer. It does not read on where a
// read came to the end of the file: an unfinished line may be taken back and
// another written in its place, and two halves of different lines are no line.
func (s *lineScanner) fill() error {
	if s.end {
		return io.EOF
	}
	kept := copy(s.buf, s.buf[s.at:])
	if want := kept + 64<<10; cap(s.buf) < want {
		s.buf = append(make([]byte, 0, max(want, 2*cap(s.buf))), s.buf[:kept]...)
	}
	n, err := s.r.ReadAt(s.buf[kept:cap(s.buf)], s.pos+int64(kept))
	s.buf, s.at = s.buf[:kept+n], 0
	s.end = errors.Is(err, io.EOF)
	if s.end && n > 0 {
		return nil
	}
	return err
}
