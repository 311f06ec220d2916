// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"
	"strings"
)

// escape makes s safe to print on one line: control characters, and anything
// that is not printable, appear as Go escapes.
func escape(s string) string {
	quoted := strconv.Quote(s)
	inner := quoted[1 : len(quoted)-1]
	return strings.ReplaceAll(strings.ReplaceAll(inner, `\"`, `"`), `\\`, `\`)
}

// maxQuoted is how many bytes of what a file says a message repeats.
const maxQuoted = 200

// shorten returns s, or its first limit bytes and "...".
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// quote returns s as a YAML scalar for use in a flow mapping: plain where that
// reads back as the same string, else in double quotes. YAML's double-quoted
// escapes are a superset of JSON's and cover what strconv.Quote produces, except
// \x of a byte that is not UTF-8, which no document can contain.
func quote(s string) string {
	if plainScalar(s) {
		return s
	}
	return strconv.QuoteToGraphic(s)
}

// plainScalar reports whether YAML reads s without quotes as the string s. It is
// narrower than YAML: it asks for a leading letter or slash, and never guesses
// about words that YAML takes for booleans or null.
func plainScalar(s string) bool {
	if s == "" || !(s[0] == '/' || isLetter(s[0])) {
		return false
	}
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n":
		return false
	}
	for i := range len(s) {
		if !isLetter(s[i]) && !isDigit(s[i]) && !strings.ContainsRune("/._-+@=~", rune(s[i])) {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// String returns the line in one-line YAML flow form.
func (l FileLine) String() string { return fileLineText(&l) }

// String returns the line in one-line YAML flow form.
func (l NetworkLine) String() string { return networkLineText(&l) }

// EscapePath returns the pattern that matches an absolute, clean path and no
// other, as far as patterns can say that: a byte that is not UTF-8 becomes "?",
// and of a path that is too deep the directory that is not.
func EscapePath(path string) string {
	components := strings.Split(strings.Trim(path, "/"), "/")
	components = components[:min(len(components), MaxDepth)]
	for i, c := range components {
		components[i] = strings.ToValidUTF8(escapeComponent(c), "?")
	}
	return "/" + strings.Join(components, "/")
}

// fileLineText renders a files line in flow form.
func fileLineText(l *FileLine) string {
	word, access := "allow", l.Allow
	if l.Deny != 0 {
		word, access = "deny", l.Deny
	}
	field := "path"
	if l.pattern.file {
		field = "file"
	}
	return "{" + field + ": " + quote(l.Path) + ", " + word + ": [" + strings.Join(access.Words(), ", ") + "]}"
}

// networkLineText renders a network line in flow form.
func networkLineText(l *NetworkLine) string {
	var b strings.Builder
	if l.Deny != "" {
		b.WriteString("{deny: " + string(l.Deny))
	} else {
		b.WriteString("{allow: " + string(l.Allow))
	}
	for _, f := range []struct{ name, value string }{
		{"cidr", l.CIDR}, {"ip", l.IP}, {"host", l.Host}, {"unix", l.Unix}, {"to", l.To},
	} {
		if f.value != "" {
			b.WriteString(", " + f.name + ": " + addressText(f.value))
		}
	}
	if len(l.Ports) > 0 {
		b.WriteString(", ports: [")
		for i, p := range l.Ports {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(p.String())
		}
		b.WriteString("]")
	}
	if l.Protocol != "" {
		b.WriteString(", protocol: " + string(l.Protocol))
	}
	b.WriteString("}")
	return b.String()
}

// addressText quotes an address only where YAML needs it: an IPv4 address or
// prefix does not.
func addressText(s string) string {
	for i := range len(s) {
		if !isDigit(s[i]) && s[i] != '.' && s[i] != '/' {
			return quote(s)
		}
	}
	return s
}
