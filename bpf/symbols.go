// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// kernelSymbols returns the addresses of kernel symbols; one that is not there,
// or that the kernel won't tell, is 0.
func kernelSymbols(names ...string) (map[string]uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	defer f.Close()
	found := map[string]uint64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(found) < len(names) {
		address, rest, _ := strings.Cut(lines.Text(), " ")
		for _, name := range names {
			if !strings.HasSuffix(rest, " "+name) {
				continue
			}
			if n, err := strconv.ParseUint(address, 16, 64); err == nil {
				found[name] = n
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	return found, nil
}
