// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"maps"
	"slices"
	"strings"
)

// environment is what the command gets: environ without the variables whose
// names match a glob of drop, with the identity's own (nil: the caller's), then
// with the variables of set. An entry that is no NAME=VALUE is dropped: no glob
// could name it.
func environment(environ, drop []string, id *Identity, set map[string]string) []string {
	own := map[string]string{}
	if id != nil {
		own = map[string]string{"HOME": id.Home, "USER": id.Name, "LOGNAME": id.Name}
		drop = append([]string{"SUDO_*"}, drop...)
	}
	maps.Copy(own, set)
	var kept []string
	for _, entry := range environ {
		name, _, ok := strings.Cut(entry, "=")
		if _, replaced := own[name]; !ok || name == "" || replaced || dropped(name, drop) {
			continue
		}
		kept = append(kept, entry)
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		kept = append(kept, name+"="+own[name])
	}
	return kept
}

func dropped(name string, globs []string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return matches(g, name) })
}

// matches is the whole glob language of variable names: * is any bytes, ? is
// one. path.Match is not used, since there * stops at a slash and a malformed
// pattern would keep a secret.
func matches(glob, s string) bool {
	star, retry := -1, 0
	g, i := 0, 0
	for i < len(s) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, retry = g, i
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == s[i]):
			g++
			i++
		case star >= 0:
			retry++
			g, i = star+1, retry
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}

// lookup returns the last value of name in environ, as getenv of the usual C
// libraries would see after duplicates were dropped.
func lookup(environ []string, name string) (string, bool) {
	for _, entry := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			return v, true
		}
	}
	return "", false
}
