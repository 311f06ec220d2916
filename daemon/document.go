// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"slices"
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

// parsed is what a document's text says. It is never changed.
type parsed struct {
	docs     []policy.Document
	problems policy.Problems
}

// parseAll returns what each of some documents says, and keeps it with them.
func parseAll(documents []storedDocument) []*parsed {
	files := map[string][]*storedDocument{}
	for i := range documents {
		if s := &documents[i]; s.parsed == nil {
			files[s.File] = append(files[s.File], s)
		}
	}
	for file, parts := range files {
		if parseTogether(file, parts) {
			continue
		}
		for _, s := range parts {
			docs, problems := s.parse()
			s.parsed = &parsed{docs, problems}
		}
	}
	list := make([]*parsed, len(documents))
	for i := range documents {
		list[i] = documents[i].parsed
	}
	return list
}

// parseTogether parses the documents of one file as they were in it. It does
// nothing, and returns false, where they are not of one version of the file, or
// where something is wrong: parsed one by one, each then says what.
func parseTogether(file string, parts []*storedDocument) bool {
	slices.SortFunc(parts, func(a, b *storedDocument) int { return cmp.Compare(a.Line, b.Line) })
	var text strings.Builder
	line := 0
	for _, s := range parts {
		if s.Line < line {
			return false
		}
		text.WriteString(strings.Repeat("\n", s.Line-line) + s.Text + "\n")
		line = s.Line + strings.Count(s.Text, "\n") + 1
	}
	docs, problems := policy.Parse(file, []byte(text.String()))
	if problems.Has(policy.Error) || len(docs) != len(parts) {
		return false
	}
	for i, s := range parts {
		if !s.holds(docs[i].Pos) {
			return false
		}
	}
	for i, s := range parts {
		s.parsed = &parsed{docs: docs[i : i+1 : i+1]}
	}
	share(problems, parts)
	return true
}

// share gives each document of a file the problems that are in it.
func share(problems policy.Problems, parts []*storedDocument) {
	owner := owners(parts)
	for _, problem := range problems {
		if i := owner(problem.Pos); i >= 0 {
			parts[i].parsed.problems = append(parts[i].parsed.problems, problem)
		}
	}
}

func pointers(documents []storedDocument) []*storedDocument {
	list := make([]*storedDocument, len(documents))
	for i := range documents {
		list[i] = &documents[i]
	}
	return list
}

// owners returns a function that finds the document that a place is in, by number;
// -1: none of them.
func owners(documents []*storedDocument) func(policy.Position) int {
	files := map[string][]int{}
	for i, s := range documents {
		files[s.File] = append(files[s.File], i)
	}
	for _, numbers := range files {
		slices.SortFunc(numbers, func(a, b int) int { return cmp.Compare(documents[a].Line, documents[b].Line) })
	}
	return func(pos policy.Position) int {
		numbers := files[pos.File]
		at, _ := slices.BinarySearchFunc(numbers, pos.Line, func(i, line int) int { return cmp.Compare(documents[i].Line, line) })
		// Mostly the last that begins above; documents of other versions of the file may be between.
		for _, i := range slices.Backward(numbers[:at]) {
			if documents[i].holds(pos) {
				return i
			}
		}
		return -1
	}
}

// split cuts a file into its documents. The file has parsed; docs are what came
// of it. A line that starts with "---" begins a document in YAML, wherever it is.
func split(file, content string, docs []policy.Document, acceptDegraded bool) []storedDocument {
	var stored []storedDocument
	cut := func(from, to, line int) {
		part := storedDocument{File: file, Line: line, Text: strings.TrimSuffix(content[from:to], "\n"), AcceptDegraded: acceptDegraded}
		for len(docs) > 0 && part.holds(docs[0].Pos) {
			part.Name, part.parsed = docs[0].Name, &parsed{docs: docs[:1:1]}
			stored, docs = append(stored, part), docs[1:]
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
