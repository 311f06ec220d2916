// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape renders a name or a path on one line of a terminal: what is not
// printable (control characters, bytes that are not UTF-8, marks that change
// the direction of text) becomes \n, \t, \r, \xHH, \uHHHH or \UHHHHHHHH, and
// a backslash \\, so that two names that differ look different.
func Escape(s string) string { return escapeText(s, true) }

// Printable is Escape that leaves backslashes as they are, for messages that
// quote already escaped names.
func Printable(s string) string { return escapeText(s, false) }

func escapeText(s string, backslash bool) string {
	clean := func(r rune) bool {
		return unicode.IsPrint(r) && r != utf8.RuneError && (r != '\\' || !backslash)
	}
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case clean(r), r == utf8.RuneError:
			b.WriteString(s[i : i+n])
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// needsBytes says whether a string must be rewritten to be put into JSON.
func needsBytes(s string) bool {
	return strings.IndexByte(s, '\\') >= 0 || !utf8.ValidString(s)
}

// escapeBytes makes valid UTF-8 of any bytes; unescapeBytes undoes it.
func escapeBytes(s string) string {
	if !needsBytes(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// unescapeBytes leaves alone what escapeBytes cannot have written.
func unescapeBytes(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], `\\`):
			b.WriteByte('\\')
			i += 2
		case strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4:
			v, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				b.WriteByte(s[i])
				i++
				continue
			}
			b.WriteByte(byte(v))
			i += 4
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String()
}
