// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"slices"
	"testing"
)

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		glob, name string
		want       bool
	}{
		{"*_TOKEN", "GH_TOKEN", true},
		{"*_TOKEN", "_TOKEN", true},
		{"*_TOKEN", "GH_TOKENS", false},
		{"*_TOKEN", "A_TOKEN_TOKEN", true},
		{"AWS_*", "AWS_", true},
		{"AWS_*", "XAWS_A", false},
		{"AWS_*", "AWS_A/B\nC", true},
		{"A?C", "ABC", true},
		{"A?C", "AC", false},
		{"*", "", true},
		{"", "", true},
		{"", "A", false},
		{"A[B", "A[B", true},
		{"*A*B*", "xAyBz", true},
		{"*A*B*", "xByAz", false},
	} {
		if got := matches(tt.glob, tt.name); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.glob, tt.name, got)
		}
	}
}

func TestEnvironment(t *testing.T) {
	id := &Identity{Name: "ann", Home: "/home/ann"}
	got := environment(
		[]string{"HOME=/root", "SUDO_UID=1", "A=1", "B_KEY=2", "A=3", "malformed", "=x", "T=old"},
		[]string{"*_KEY"}, id, map[string]string{"T": "new"})
	want := []string{"A=1", "A=3", "HOME=/home/ann", "LOGNAME=ann", "T=new", "USER=ann"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := environment([]string{"HOME=/root", "SUDO_UID=1"}, nil, nil, nil); !slices.Equal(got, []string{"HOME=/root", "SUDO_UID=1"}) {
		t.Errorf("the caller's own: %q", got)
	}
}
