// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReadmeShowsTheMinimalPolicy(t *testing.T) {
	want, err := os.ReadFile("../../examples/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(readme(t), "```yaml\n")
	if got, _, _ := strings.Cut(block, "```"); got != string(want) {
		t.Errorf("README.md shows\n%s\nexamples/minimal.yaml is\n%s", got, want)
	}
}

func TestExamplesAreRight(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	env, stdout, stderr := testEnvironment(append([]string{"policy", "check"}, files...)...)
	if code := run(context.Background(), env); code != exitOK {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
}

// Every `bailiff WORD...` of the README is a command, and every --flag after it
// in the same code is one of its flags.
func TestReadmeNamesCommandsThatExist(t *testing.T) {
	env, _, _ := testEnvironment()
	lines := regexp.MustCompile("(?m)(?:`|sudo |\\$ )bailiff ([a-z][^`#\n]*)").FindAllStringSubmatch(readme(t), -1)
	if len(lines) < 10 {
		t.Fatalf("only %d commands were found", len(lines))
	}
	for _, line := range lines {
		words, _, _ := strings.Cut(line[1], " -- ")
		c, rest, err := rootCommand(env).Find(strings.Fields(words))
		if err != nil || c.HasSubCommands() {
			t.Errorf("there is no command %q: %v", line[1], err)
			continue
		}
		for _, word := range rest {
			if name, ok := strings.CutPrefix(word, "--"); ok && c.Flag(name) == nil {
				t.Errorf("`%s` has no flag --%s", c.CommandPath(), name)
			}
		}
	}
}
