// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// scanLines returns the lengths of the lines, -1 for one that is too long, and
// where the scanner stood at the end.
func scanLines(t *testing.T, text []byte) (lengths []int, pos int64) {
	t.Helper()
	s := newLineScanner(bytes.NewReader(text), 0)
	for {
		line, offset, err := s.next()
		switch {
		case errors.Is(err, io.EOF):
			return lengths, s.pos
		case errors.Is(err, errLineTooLong):
			lengths = append(lengths, -1)
		case err != nil:
			t.Fatal(err)
		default:
			if !bytes.Equal(line, text[offset:offset+int64(len(line))]) {
				t.Fatalf("the line at %d is not what is there", offset)
			}
			lengths = append(lengths, len(line))
		}
	}
}

func checkLines(t *testing.T, text []byte) {
	t.Helper()
	got, pos := scanLines(t, text)
	whole := text[:bytes.LastIndexByte(text, '\n')+1]
	want := bytes.SplitAfter(whole, []byte("\n"))
	want = want[:len(want)-1]
	if pos != int64(len(whole)) || len(got) != len(want) {
		t.Fatalf("%d lines, ended at %d; want %d, %d", len(got), pos, len(want), len(whole))
	}
	for i, line := range want {
		n := len(line) - 1
		if n > maxLine {
			n = -1
		}
		if got[i] != n {
			t.Fatalf("line %d has length %d, want %d", i, got[i], n)
		}
	}
}

func TestLineLengths(t *testing.T) {
	lengths := []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128<<10 - 1, 200 << 10, maxLine - 1, maxLine, maxLine + 1, 3 * maxLine}
	for _, a := range lengths {
		for _, b := range lengths {
			text := strings.Repeat("a", a) + "\n" + strings.Repeat("b", b) + "\nrest"
			checkLines(t, []byte(text))
		}
	}
	checkLines(t, []byte("no newline"))
	checkLines(t, nil)
	checkLines(t, bytes.Repeat([]byte("x"), 2*maxLine))
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\n\nb"), uint16(0))
	f.Add([]byte("a\n"), uint16(65530))
	f.Fuzz(func(t *testing.T, text []byte, padding uint16) {
		checkLines(t, append(bytes.Repeat([]byte("p"), int(padding)), text...))
	})
}
