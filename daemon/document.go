// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"

	"bailiff.dev/bailiff/policy"
)

// parse parses a stored document with the places it had in its file.
func (s *storedDocument) parse() ([]policy.Document, policy.Problems) {
	return policy.Parse(s.File, []byte(strings.Repeat("\n", s.Line)+s.Text))
}

// holds tells whether a place is in this document.
func (s *storedDocument) holds(pos policy.Position) bool {
	return pos.File == s.File && pos.Line > s.Line && pos.Line <= s.Line+strings.Count(s.Text, "\n")+1
}

// split cuts a file into its documents. The file has parsed; docs are what came
// of it. A line that starts with "---" begins a document in YAML, wherever it is.
func split(file, content string, docs []policy.Document, acceptDegraded bool) []storedDocument {
	var stored []storedDocument
	cut := func(from, to, line int) {
		part := storedDocument{File: file, Line: line, Text: strings.TrimSuffix(content[from:to], "\n"), AcceptDegraded: acceptDegraded}
		for i := range docs {
			if part.holds(docs[i].Pos) {
				part.Name = docs[i].Name
				stored = append(stored, part)
			}
		}
	}
	from, at, begin, line := 0, 0, 0, 0
	for text := range strings.Lines(content) {
		if marker(text) && at > from {
			cut(from, at, begin)
			from, begin = at, line
		}
		at += len(text)
		line++
	}
	cut(from, at, begin)
	return stored
}

// marker tells whether a line begins a document.
func marker(line string) bool {
	rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "---")
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}
