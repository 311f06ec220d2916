// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
)

func TestExpand(t *testing.T) {
	root := fstest.MapFS{
		"usr/lib/a.so":       {},
		"usr/lib/b.so.1":     {},
		"usr/lib/sub/c.so":   {},
		"srv/x/.env":         {},
		"srv/x/y/.env":       {},
		"srv/.env":           {},
		"srv/x/y/z/other":    {},
		"link":               {Mode: fs.ModeSymlink, Data: []byte("usr")},
		"odd/star*":          {},
		"home/a/.gitconfig":  {},
		"home/b/.config/git": {},
	}
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"/", []string{"/"}},
		{"/usr/lib", []string{"/usr/lib"}},
		{"/usr/lib/a.so", []string{"/usr/lib/a.so"}},
		{"/usr/none", nil},
		{"/usr/lib/a.so/b", nil},
		{"/usr/lib/*.so", []string{"/usr/lib/a.so"}},
		{"/usr/lib/*.so*", []string{"/usr/lib/a.so", "/usr/lib/b.so.1"}},
		{"/**/.env", []string{"/srv/.env", "/srv/x/.env", "/srv/x/y/.env"}},
		{"/srv/*/y", []string{"/srv/x/y"}},
		{"/link/lib", nil},
		{"/link", []string{"/link"}},
		{`/odd/star\*`, []string{"/odd/star*"}},
		{"/home/*/.gitconfig", []string{"/home/a/.gitconfig"}},
	} {
		pattern, err := parsePattern(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		p := landlockPath(&pathRule{pattern: pattern})
		got, err := p.Expand(root, 10)
		slices.Sort(got)
		if !slices.Equal(got, tt.want) || err != nil {
			t.Errorf("%s: %q, %v", tt.path, got, err)
		}
	}
	pattern, _ := parsePattern("/srv/**/.env")
	p := landlockPath(&pathRule{pattern: pattern})
	if _, err := p.Expand(root, 2); !errors.Is(err, ErrTooManyPaths) {
		t.Errorf("over the limit: %v", err)
	}
}
