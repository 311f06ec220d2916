// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// maxLandlockPaths bounds what one pattern may expand to.
const maxLandlockPaths = 10_000

// landlockPaths returns what a launcher must allow itself on the basic tier: the
// allow rules, over the paths that exist now. Links are resolved: Landlock's
// rules are about what they lead to, and so are policies.
func landlockPaths(r *policy.Ruleset, docs []policy.Document) ([]*controlv1.LandlockPath, error) {
	view, _ := r.Landlock(docs)
	granted := map[string]policy.Access{}
	root := os.DirFS("/")
	for i := range view.Paths {
		p := &view.Paths[i]
		paths, err := p.Expand(root, maxLandlockPaths)
		if err != nil && !errors.Is(err, policy.ErrTooManyPaths) {
			return nil, fmt.Errorf("expand %s: %w", r.Rules[p.Rule].ID, err)
		}
		if err != nil {
			return nil, fmt.Errorf("expand %s: %w: name fewer with it, or a directory above them", r.Rules[p.Rule].ID, err)
		}
		for _, path := range paths {
			// A wildcard also finds links; what they lead to is judged by its own name.
			if p.Glob && isLink(path) {
				continue
			}
			granted[path] |= p.Access & r.Rights(components(path))
		}
	}
	var list []*controlv1.LandlockPath
	for path, access := range granted {
		if access != 0 {
			list = append(list, &controlv1.LandlockPath{Path: path, Access: uint32(access)})
		}
	}
	slices.SortFunc(list, func(a, b *controlv1.LandlockPath) int { return cmp.Compare(a.Path, b.Path) })
	return list, nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}

// components splits an absolute path.
func components(path string) []string {
	trimmed := strings.Trim(filepath.Clean(path), "/")
	if trimmed == "" {
		return nil
	}
	return strings.Split(trimmed, "/")
}
