// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	currentName   = "events.jsonl"
	rotatedPrefix = "events-"
	suffix        = ".jsonl"
	// nameTime has a fixed width, so names sort by time.
	nameTime = "20060102T150405.000000000Z"
)

// Directory is where the log is below the daemon's state directory.
func Directory(state string) string { return filepath.Join(state, "log") }

// rotatedName is the name of a file whose first event is of time t.
func rotatedName(t time.Time) string {
	return rotatedPrefix + t.UTC().Format(nameTime) + suffix
}

// rotatedTime is the time in a rotated file's name; ok is false for any other name.
func rotatedTime(name string) (t time.Time, ok bool) {
	middle, found := strings.CutPrefix(name, rotatedPrefix)
	if !found {
		return time.Time{}, false
	}
	middle, found = strings.CutSuffix(middle, suffix)
	if !found {
		return time.Time{}, false
	}
	t, err := time.Parse(nameTime, middle)
	return t, err == nil
}

// rotatedFiles lists the names of the rotated files in dir, oldest first.
func rotatedFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the log: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, ok := rotatedTime(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func currentPath(dir string) string { return filepath.Join(dir, currentName) }
