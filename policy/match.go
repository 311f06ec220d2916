// SPDX-License-Identifier: Apache-2.0

package policy

// matchGlob reports whether name matches a glob of one component, as written:
// "*" is any bytes, "?" is one byte, a backslash escapes.
func matchGlob(glob, name string) bool {
	g, n := 0, 0
	star, mark := -1, 0 // where to resume after the last "*", and from which byte
	for n < len(name) {
		if g < len(glob) && glob[g] == '*' {
			g++
			star, mark = g, n
			continue
		}
		if next, ok := matchByte(glob, g, name[n]); ok {
			g, n = next, n+1
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		g, n = star, mark
	}
	for g < len(glob) && glob[g] == '*' {
		g++
	}
	return g == len(glob)
}

// matchByte matches one byte against what stands at glob[g], which is no "*",
// and returns where the next element starts.
func matchByte(glob string, g int, c byte) (next int, ok bool) {
	switch {
	case g >= len(glob):
		return g, false
	case glob[g] == '?':
		return g + 1, true
	case glob[g] == '\\' && g+1 < len(glob):
		return g + 2, glob[g+1] == c
	}
	return g + 1, glob[g] == c
}
