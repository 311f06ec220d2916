// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// maxPolicyFile is the most that the daemon takes of all files together.
const maxPolicyFile = 64 << 20

// policyFile is a file as the user named it.
type policyFile struct {
	name    string
	content []byte
}

// readPolicies reads files, the *.yaml, *.yml and *.json of directories, and
// standard input for "-". What cannot be read is bad input.
func (env *environment) readPolicies(args []string) ([]policyFile, error) {
	var files []policyFile
	for _, arg := range args {
		names, err := expand(arg)
		if err != nil {
			return nil, &exitError{exitUsage, err}
		}
		for _, name := range names {
			content, err := env.readPolicy(name)
			if err != nil {
				return nil, &exitError{exitUsage, err}
			}
			if name == "-" {
				name = "<stdin>"
			}
			files = append(files, policyFile{name, content})
		}
	}
	return files, nil
}

func expand(arg string) ([]string, error) {
	info, err := os.Stat(arg)
	if arg == "-" || err != nil || !info.IsDir() {
		return []string{arg}, nil // reading it says what is wrong
	}
	entries, err := os.ReadDir(arg)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	var names []string
	for _, e := range entries {
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			names = append(names, filepath.Join(arg, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("read policies: there is no .yaml, .yml or .json file in %s", arg)
	}
	return names, nil
}

func (env *environment) readPolicy(name string) ([]byte, error) {
	in := env.stdin
	if name != "-" {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read policy: there is no file %s", name)
		}
		if err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		defer f.Close()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, maxPolicyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if len(content) > maxPolicyFile {
		return nil, fmt.Errorf("read policy: %s is larger than 64 MiB; split it and apply the parts one after the other", name)
	}
	return content, nil
}
