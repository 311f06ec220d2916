// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"
)

// TestJudgePath: what the differential test leaves out: several rights, and paths
// that can't be judged.
func TestJudgePath(t *testing.T) {
	r := mustCompile(t, advisePolicy)
	for _, tt := range []struct {
		path   string
		access Access
		want   string // "allow|default|deny|guard RIGHT RULE", or the error
	}{
		{"/srv/x", Read, "allow read p/files/0"},
		{"/srv", Read, "allow read p/files/0"},
		{"/srv/x", Read | Write, "default write default"},
		{"/srv/x", Create | Write, "default write default"},
		{"/srv/closed/x", Read | Write, "deny read p/files/1"},
		{"/srv/closed/.ssh", Read | Write, "guard read g/files/0"},
		{"/", Read, "default read default"},
		{"/run/docker.sock", Connect, "guard connect g/network/1"},
		{"@x", Connect, "default connect default"},
		{"@", Connect, "the abstract name is empty"},
		{"srv/x", Read, "it is not absolute"},
		{"", Read, "it is not absolute"},
		{"/srv/../etc", Read, `it is not clean: write "/etc"`},
		{"/srv/", Read, `it is not clean: write "/srv"`},
		{"//srv", Read, "it is not clean"},
		{"/\x00/x", Connect, "it contains a NUL"},
		{"/srv/x", 0, "no known right"},
		{"/srv/x", 64 | Read, "no known right"},
	} {
		d, err := r.JudgePath(tt.path, tt.access)
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case d.Allow:
			got = "allow"
		case d.Guard:
			got = "guard"
		case d.Explicit():
			got = "deny"
		default:
			got = "default"
		}
		if err == nil {
			got += " " + d.Right.String() + " " + r.Rules[d.Rule].ID
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%q %s: %s, want %s", tt.path, tt.access, got, tt.want)
		}
	}
}

func TestJudgeAddress(t *testing.T) {
	r := mustCompile(t, advisePolicy)
	for address, want := range map[string]Decision{
		"[::ffff:10.0.0.9]:80": {Rule: 4},
		"[fe80::1%eth0]:80":    {},
		"10.66.0.1:80":         {Guard: true, Rule: 2},
	} {
		got := r.JudgeAddress(Outbound, netip.MustParseAddrPort(address), TCP)
		if got.Allow != want.Allow || got.Guard != want.Guard || (got.Rule == 0) != (want.Rule == 0) || got.Explicit() != (want.Rule != 0) {
			t.Errorf("%s: %+v (%s)", address, got, r.Rules[got.Rule].ID)
		}
	}
}
