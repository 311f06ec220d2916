// SPDX-License-Identifier: Apache-2.0

// Package architecture holds the rules of the source tree that no compiler checks.
package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "bailiff.dev/bailiff/"

	maxFileLines     = 600
	maxFunctionLines = 80
)

// plain are the packages that are only data: any package may import them.
var plain = []string{"internal/control/v1", "internal/control/v1/controlv1connect"}

// allowed tells what else of ours a package may import, by the first match of its
// directory; tests may import kerneltest besides. A directory in no row may import
// nothing.
var allowed = []struct{ directory, imports string }{
	{"cmd", "daemon policy internal cmd"},
	{"daemon", "bpf policy internal daemon"},
	{"bpf", "policy"},
	{"tests", "cmd daemon bpf policy internal tests"},
}

// source is a Go file of the tree.
type source struct {
	path string // from the root, with slashes
	set  *token.FileSet
	file *ast.File
}

func (s source) directory() string { return path.Dir(s.path) }
func (s source) test() bool        { return strings.HasSuffix(s.path, "_test.go") }
func (s source) generated() bool   { return ast.IsGenerated(s.file) }

// lines counts the lines from a node's first to its last.
func (s source) lines(n ast.Node) int {
	return s.set.Position(n.End()).Line - s.set.Position(n.Pos()).Line + 1
}

func sources(t *testing.T) []source {
	t.Helper()
	var found []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		skipped := strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "build"
		if entry.IsDir() && skipped && name != root {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		found = append(found, source{filepath.ToSlash(relative), set, file})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 10 {
		t.Fatalf("found %d files: this test no longer sees the tree", len(found))
	}
	return found
}

func within(directory, top string) bool {
	return directory == top || strings.HasPrefix(directory, top+"/")
}

// mayImport tells whether the package in directory may import ours named imported.
func mayImport(directory, imported string, test bool) bool {
	if slices.Contains(plain, imported) || test && imported == "internal/kerneltest" {
		return true
	}
	for _, row := range allowed {
		if !within(directory, row.directory) {
			continue
		}
		return slices.ContainsFunc(strings.Fields(row.imports), func(top string) bool {
			return within(imported, top)
		})
	}
	return false
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			imported, ours := strings.CutPrefix(name, module)
			if !ours || imported == s.directory() {
				continue
			}
			if !mayImport(s.directory(), imported, s.test()) {
				t.Errorf("%s may not import %s", s.path, imported)
			}
		}
	}
}

func TestImportRule(t *testing.T) {
	tests := []struct {
		from, to string
		test     bool
		want     bool
	}{
		{"cmd/bailiff", "daemon", false, true},
		{"cmd/bailiff", "bpf", false, false},
		{"daemon", "bpf", false, true},
		{"daemon", "cmd/bailiff", false, false},
		{"bpf", "policy", false, true},
		{"bpf", "daemon", false, false},
		{"policy", "bpf", false, false},
		{"policy", "internal/audit", false, false},
		{"internal/audit", "policy", false, false},
		{"internal/audit", "internal/control/v1", false, true},
		{"internal/audit", "internal/kerneltest", true, true},
		{"internal/audit", "internal/kerneltest", false, false},
		{"daemonic", "bpf", false, false},
	}
	for _, test := range tests {
		if got := mayImport(test.from, test.to, test.test); got != test.want {
			t.Errorf("%s importing %s (test %v): %v, want %v", test.from, test.to, test.test, got, test.want)
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		key := s.directory() + ": " + s.file.Name.Name
		if strings.HasSuffix(s.file.Name.Name, "_test") || s.generated() {
			continue
		}
		documented[key] = documented[key] || s.file.Doc.Text() != ""
	}
	for key, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment", key)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated() {
			continue
		}
		if lines := s.set.File(s.file.Pos()).LineCount(); lines > maxFileLines {
			t.Errorf("%s: %d lines, over %d", s.path, lines, maxFileLines)
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			function, ok := n.(*ast.FuncDecl)
			if !ok {
				return true
			}
			if lines := s.lines(function); lines > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, over %d", s.path, function.Name.Name, lines, maxFunctionLines)
			}
			return false
		})
	}
}
