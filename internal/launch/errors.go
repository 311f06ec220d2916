// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Exit statuses of a command that was not started.
const (
	ExitFailed        = 125 // Bailiff failed, or the daemon refused
	ExitNotExecutable = 126 // found, and can't be executed
	ExitNotFound      = 127 // not found
)

// Error says why the command was not started.
type Error struct {
	Code int    // the exit status: one of the Exit constants
	Text string // one line, safe for a terminal, with what to do next
}

func (e *Error) Error() string { return e.Text }

// ExitCode returns the status to exit with.
func (e *Error) ExitCode() int { return e.Code }

func failure(code int, format string, args ...any) *Error {
	return &Error{Code: code, Text: printable(fmt.Sprintf(format, args...))}
}

// printable escapes what could move a terminal's cursor or start a new line.
// Backslashes stay, so that text that is escaped already reads the same.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], string(unicode.ReplacementChar)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
