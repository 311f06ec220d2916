// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// accessWords are the words of a files line, in the order of the bits.
var accessWords = [...]string{"read", "write", "create", "delete", "execute"}

// fileAccess is every right a files line can name.
const fileAccess = Read | Write | Create | Delete | Execute

// Words returns the rights as words, in the order of the bits.
func (a Access) Words() []string {
	var words []string
	for i, w := range accessWords {
		if a&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	if a&Connect != 0 {
		words = append(words, "connect")
	}
	return words
}

// String returns the rights as "read, write", or "none".
func (a Access) String() string {
	if a == 0 {
		return "none"
	}
	return strings.Join(a.Words(), ", ")
}

// ParseAccess returns the right that a word names. Only the words of a files
// line are known; ok is false for any other, and fix then says which was meant.
func ParseAccess(word string) (a Access, fix string, ok bool) {
	for i, w := range accessWords {
		if w == word {
			return 1 << i, "", true
		}
	}
	if meant := accessSynonym(word); meant != "" {
		return 0, `write "` + meant + `"`, false
	}
	return 0, suggest(word, accessWords[:]), false
}

// accessSynonym maps words of other systems to ours.
func accessSynonym(word string) string {
	switch strings.ToLower(word) {
	case "r", "list", "open", "stat", "ro":
		return "read"
	case "w", "modify", "truncate", "append", "chmod", "chown", "update":
		return "write"
	case "mkdir", "add", "link", "symlink":
		return "create"
	case "d", "remove", "unlink", "rmdir", "rm":
		return "delete"
	case "x", "exec", "run", "map":
		return "execute"
	}
	return ""
}
