// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says how much a Problem matters.
type Severity string

// The severities, worst first.
const (
	Error       Severity = "error"       // the document is wrong; it can't be applied
	Unsupported Severity = "unsupported" // right, but not enforceable; applying refuses it
	Degraded    Severity = "degraded"    // enforced, but less sharply than written
	Note        Severity = "note"        // enforced as written, which may not be what was meant
)

// Problem is one thing wrong with a document.
type Problem struct {
	Severity Severity
	Pos      Position
	Message  string // what is wrong; control characters are escaped
	Fix      string // what would be right; never empty for an Error
}

// String returns "file:line:column: severity: message; fix" on one line.
func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s: %s", p.Pos, p.Severity, p.Message)
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// Problems is a list of problems.
type Problems []Problem

// Sort orders problems by place and drops repeated ones.
func (ps *Problems) Sort() {
	slices.SortStableFunc(*ps, func(a, b Problem) int {
		return cmp.Or(
			comparePositions(a.Pos, b.Pos),
			cmp.Compare(a.Severity, b.Severity),
			cmp.Compare(a.Message, b.Message),
			cmp.Compare(a.Fix, b.Fix),
		)
	})
	*ps = slices.Compact(*ps)
}

// Has reports whether a problem has that severity.
func (ps Problems) Has(s Severity) bool {
	return slices.ContainsFunc(ps, func(p Problem) bool { return p.Severity == s })
}

// Err returns the problems of severity Error as one error, or nil.
func (ps Problems) Err() error {
	var lines []string
	for _, p := range ps {
		if p.Severity == Error {
			lines = append(lines, p.String())
		}
	}
	if lines == nil {
		return nil
	}
	return fmt.Errorf("check policy: %s", strings.Join(lines, "\n"))
}

// String returns "file:line:column", with control characters of the file's name
// escaped; a Position without a line is the file's name alone.
func (p Position) String() string {
	if p.Line == 0 {
		return escape(p.File)
	}
	return fmt.Sprintf("%s:%d:%d", escape(p.File), p.Line, p.Column)
}

func comparePositions(a, b Position) int {
	return cmp.Or(
		cmp.Compare(a.File, b.File),
		cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Column, b.Column),
	)
}
