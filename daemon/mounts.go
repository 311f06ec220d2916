// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// homes reads mountinfo: for each filesystem, by its device number, the path at
// which the whole of it is mounted. Where there are several, the first, which is
// the oldest. A filesystem that only shows a part of itself has none.
func homes() (map[uint32][]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	found := map[uint32][]string{}
	for line := range strings.Lines(string(data)) {
		// 36 35 98:0 /root /mount/point options ...
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[3] != "/" {
			continue
		}
		device, ok := deviceNumber(fields[2])
		if _, known := found[device]; !ok || known {
			continue
		}
		found[device] = components(unescapeMount(fields[4]))
	}
	return found, nil
}

// deviceNumber turns MAJOR:MINOR into the kernel's own dev_t.
func deviceNumber(s string) (uint32, bool) {
	major, minor, ok := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, 10, 12)
	b, err2 := strconv.ParseUint(minor, 10, 20)
	return uint32(a<<20 | b), ok && err1 == nil && err2 == nil
}

// unescapeMount undoes what mountinfo does to blanks and backslashes.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// followMounts keeps the kernel's table of mounts up to date. A mount that it
// does not know yet is denied where the table is needed, never allowed.
func (d *Daemon) followMounts(ctx context.Context) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("watch the mounts: %w", err)
	}
	defer f.Close()
	if err := d.setHomes(); err != nil {
		return err
	}
	go func() {
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		for ctx.Err() == nil {
			// mountinfo is ready with POLLPRI and POLLERR when something changed.
			if n, err := unix.Poll(poll, int(time.Second.Milliseconds())); n == 0 || err != nil {
				continue
			}
			if err := d.setHomes(); err != nil {
				d.log.Error("the kernel's table of mounts is not up to date", "error", err)
			}
		}
	}()
	return nil
}

func (d *Daemon) setHomes() error {
	found, err := homes()
	if err != nil {
		return err
	}
	return d.kernel.SetHomes(found)
}
