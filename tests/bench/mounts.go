// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mounts returns where whole file systems are mounted, by device number: what the
// daemon tells the programs, for operations whose hooks see no mount.
func mounts() (map[uint32][]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	homes := map[uint32][]string{}
	for line := range strings.Lines(string(text)) {
		// 36 35 8:1 / /srv rw - ext4 /dev/sda1 rw
		fields := strings.Fields(line)
		major, minor, _ := strings.Cut(fields[2], ":")
		high, errHigh := strconv.ParseUint(major, 10, 12)
		low, errLow := strconv.ParseUint(minor, 10, 20)
		device := uint32(high<<20 | low)
		if _, seen := homes[device]; seen || fields[3] != "/" || errHigh != nil || errLow != nil {
			continue
		}
		homes[device] = components(fields[4])
	}
	return homes, nil
}

// components splits an absolute path.
func components(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}
