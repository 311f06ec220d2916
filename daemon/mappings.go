// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"bailiff.dev/bailiff/policy"
)

// mapping is a file that a process has in its memory.
type mapping struct {
	region string // of addresses, as /proc/PID/map_files names it
	path   string
	gone   bool          // it was deleted
	access policy.Access // on the file that it needs
}

// mappingsOf reads the mappings of files of a process; one that has gone has none.
func mappingsOf(pid int) ([]mapping, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the mappings of process %d: %w", pid, err)
	}
	return parseMappings(string(data)), nil
}

func parseMappings(text string) []mapping {
	var list []mapping
	for line := range strings.Lines(text) {
		// 7f00-7f01 r-xp 00000000 08:02 135522    /usr/lib/libc.so.6
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(fields) < 6 {
			continue
		}
		path := strings.TrimLeft(fields[5], " ")
		if !strings.HasPrefix(path, "/") {
			continue
		}
		m := mapping{region: region(fields[0]), gone: strings.HasSuffix(path, " (deleted)"), path: strings.ReplaceAll(strings.TrimSuffix(path, " (deleted)"), `\012`, "\n"), access: policy.Read}
		if strings.Contains(fields[1], "x") {
			m.access |= policy.Execute
		}
		if strings.HasSuffix(fields[1], "s") && strings.Contains(fields[1], "w") {
			m.access |= policy.Write
		}
		list = append(list, m)
	}
	return list
}

// region writes addresses without the zeros that they begin with in maps.
func region(addresses string) string {
	from, to, _ := strings.Cut(addresses, "-")
	return strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")
}
