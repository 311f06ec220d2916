// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestLandlock(t *testing.T) {
	docs := mustParse(t, head+`  files:
    - {path: /srv/work, allow: [read, write]}
    - {path: "/srv/work/**/.env", deny: [read]}
    - {path: /srv/work/.git, deny: [write]}
    - {path: /etc, deny: [read]}
    - {path: /etc/hosts, allow: [read]}
    - {path: "/srv/*.db", allow: [read]}
    - {path: "/srv/a*", deny: [read]}
  network:
    - {allow: connect, unix: /run/x}
    - {deny: connect, unix: /run/y}
    - {allow: connect, unix: "@x"}
`)
	r, _ := Compile(testAgent, docs)
	view, ps := r.Landlock(docs)
	var got []string
	for _, p := range ps {
		got = append(got, p.String())
	}
	want := []string{
		`f.yaml:8:7: unsupported: p/files/1 ({path: "/srv/work/**/.env", deny: [read]}) is not enforced without BPF LSM: read stays allowed there`,
		`f.yaml:9:7: unsupported: p/files/2 (`,
		`f.yaml:12:7: degraded: p/files/5 ({path: "/srv/*.db", allow: [read]}) is not enforced as written without BPF LSM: only the paths that exist`,
		`f.yaml:15:7: degraded: p/network/0 (`,
		`f.yaml:17:7: degraded: p/network/2 ({allow: connect, unix: "@x"}) is not enforced as written without BPF LSM: Landlock closes every`,
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	var paths []string
	for i := range view.Paths {
		path, ok := view.Paths[i].Path()
		if ok == view.Paths[i].Glob {
			t.Errorf("path %q, glob %v", path, view.Paths[i].Glob)
		}
		paths = append(paths, path+" "+view.Paths[i].Access.String())
	}
	if want := []string{"/srv/work read, write", "/etc/hosts read", " read"}; !slices.Equal(paths, want) {
		t.Errorf("paths %q", paths)
	}
	last := view.Paths[2].Components
	if !last[0].Match("srv") || !last[1].Match("x.db") || last[1].Match("x.txt") {
		t.Errorf("components %+v", last)
	}
	// The tie that a deny of "/srv/a*" wins, for the launcher to see.
	if r.Rights([]string{"srv", "a.db"}) != 0 || r.Rights([]string{"srv", "b.db"}) != Read {
		t.Error("a tie is not denied")
	}
}
