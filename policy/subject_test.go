// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestParseSubject(t *testing.T) {
	for text, want := range map[string]string{
		"reviewer":                  "spiffe://local/agent/reviewer",
		"spiffe://local/agent/a":    "spiffe://local/agent/a",
		"spiffe://example.org/*":    "spiffe://example.org/*",
		"spiffe://example.org/ci/*": "spiffe://example.org/ci/*",
	} {
		if got, err := ParseSubject(text); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                      "it is empty: ",
		"*":                     `"spiffe://local/agent/*" are all local ones`,
		"a/b":                   `write "spiffe://local/agent/a/b" in full`,
		"a b":                   "path segments are letters",
		"https://x/y":           "it is no SPIFFE ID",
		"spiffe://Example/a":    "trust domain must be lower-case",
		"spiffe://example":      "it names no workload",
		"spiffe://example/":     "it names no workload",
		"spiffe://example/a/":   "empty path segment",
		"spiffe://example/../a": "SPIFFE forbids",
		"spiffe://example/*/a":  `"*" is only known as the whole last segment`,
		"spiffe://e/" + strings.Repeat("a", MaxSPIFFEID): "at most 2048",
	} {
		if _, err := ParseSubject(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		subject, agent string
		want           bool
	}{
		{"spiffe://a/b", "spiffe://a/b", true},
		{"spiffe://a/b", "spiffe://a/bc", false},
		{"spiffe://a/b/*", "spiffe://a/b/c/d", true},
		{"spiffe://a/b/*", "spiffe://a/b", false},
		{"spiffe://a/b/*", "spiffe://a/b/", false},
		{"spiffe://a/b/*", "spiffe://a/bc", false},
		{"spiffe://a/*", "spiffe://a/b/*", true},
		{"spiffe://a/b/*", "spiffe://a/*", false},
	} {
		if got := Match(tt.subject, tt.agent); got != tt.want {
			t.Errorf("Match(%q, %q) = %v", tt.subject, tt.agent, got)
		}
	}
}

func TestSubjects(t *testing.T) {
	subject := func(name, id string) string {
		return strings.NewReplacer("name: p", "name: "+name, "spiffeID: a", "spiffeID: "+id).Replace(head)
	}
	guard := strings.Replace(guardHead, `["spiffe://local/*"]`, `["spiffe://local/*", "spiffe://local/agent/x", "spiffe://other/y"]`, 1)
	docs := mustParse(t, subject("p", `"spiffe://local/agent/*"`)+"---\n"+subject("q", "z")+"---\n"+guard)
	got := Subjects(docs)
	want := []string{"spiffe://local/agent/*", "spiffe://local/agent/x", "spiffe://local/agent/z"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for agent, want := range map[string]string{
		"spiffe://local/agent/x":     "spiffe://local/agent/x",
		"spiffe://local/agent/other": "spiffe://local/agent/*",
		"spiffe://other/y":           "",
	} {
		if s, ok := SubjectFor(agent, got); s != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", agent, s, ok)
		}
	}
}
