// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxProblem is how long a problem may be when it is printed: what a file says is
// repeated in it only in part.
const maxProblem = 24 << 10

// checkProblems: each can be printed on one line, has a place within the text, and
// an error says what would be right.
func checkProblems(t *testing.T, ps Problems, lines []int) {
	t.Helper()
	for _, p := range ps {
		text := p.String()
		if len(text) > maxProblem || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("can't be printed: %.200q of %d bytes", text, len(text))
		}
		if p.Severity == Error && p.Fix == "" {
			t.Errorf("no way out of: %.200s", text)
		}
		if p.Pos.Line < 1 || p.Pos.Line > len(lines) || p.Pos.Column < 1 || p.Pos.Column > lines[p.Pos.Line-1]+1 {
			t.Errorf("it has no place in a text of %d lines: %.200s", len(lines), text)
		}
	}
}

// checkCompiler is checkProblems for the compiler, which says of an agent without
// a policy only who it is.
func checkCompiler(t *testing.T, ps Problems, lines []int) {
	t.Helper()
	for _, p := range ps {
		if p.Pos.Line != 0 || !strings.HasPrefix(p.Message, "no AgentPolicy is about") {
			checkProblems(t, Problems{p}, lines)
		}
	}
}

// lineLengths returns how many characters each line of a text has. A line ends
// where YAML says so.
func lineLengths(text string) []int {
	lengths := []int{0}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for _, r := range text {
		switch r {
		case '\n', '\r', '\u0085', '\u2028', '\u2029':
			lengths = append(lengths, 0)
		default:
			lengths[len(lengths)-1]++
		}
	}
	return lengths
}

// checkTexts: the text of a rule reads back as the line that it is the text of.
func checkTexts(t *testing.T, r *Ruleset) {
	t.Helper()
	for _, rule := range r.Rules[1:] {
		about, _, _ := strings.Cut(strings.TrimPrefix(rule.ID, rule.Policy+"/"), "/")
		if about != "files" && about != "network" {
			continue // a preset's, which has other forms, or built in
		}
		text := head
		if rule.Guard {
			text = guardHead
		}
		docs, ps := Parse("rule.yaml", []byte(text+"  "+about+":\n    - "+rule.Text+"\n"))
		if len(docs) != 1 || ps.Has(Error) {
			t.Errorf("%s does not read back: %v", rule.Text, ps)
			continue
		}
		again := ""
		if about == "files" {
			again = fileLineText(&docs[0].Files()[0])
		} else {
			again = networkLineText(&docs[0].Network()[0])
		}
		if again != rule.Text {
			t.Errorf("%s reads back as %s", rule.Text, again)
		}
	}
}

// comparePath compares the compiled ruleset with the reference about one path.
func comparePath(t *testing.T, ref *Reference, r *Ruleset, path []string) {
	t.Helper()
	state := r.Files.States[r.Files.Walk(path)]
	for bit := range NumAccess {
		right := Access(1) << bit
		want := ref.File(path, right)
		got, err := r.JudgePath(objectText(path), right)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("%q %s: compiled %+v (%s), reference %+v (%s)", path, right, got, r.Rules[got.Rule].Text, want, ref.Rule(want.Rule).Text)
		}
		if got.Explicit() != (state.Deny&right != 0) {
			t.Fatalf("%q %s: Deny bit is %v", path, right, state.Deny&right != 0)
		}
	}
}

// objectText is the text of components, as JudgePath takes it.
func objectText(components []string) string {
	if len(components) == 2 && components[0] == abstractName {
		return "@" + components[1]
	}
	return "/" + strings.Join(components, "/")
}

// compareAddress compares the two about one address, in a direction and transport
// that g draws.
func compareAddress(t *testing.T, ref *Reference, r *Ruleset, addr netip.Addr, port uint16, g generator) {
	t.Helper()
	direction, transport := pick(g, Outbound, Inbound), pick(g, TCP, UDP)
	want := ref.Net(direction, addr, port, transport)
	got := r.JudgeAddress(direction, netip.AddrPortFrom(addr, port), transport)
	if got != want {
		t.Fatalf("%v %s %d/%d: compiled %+v (%s), reference %+v (%s)", direction, addr, port, transport, got, r.Rules[got.Rule].Text, want, r.Rules[want.Rule].Text)
	}
}
