// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mount is a line of mountinfo.
type mount struct {
	device uint32 // the kernel's own dev_t
	root   string // what of the filesystem it shows
	point  string // where
	kind   string // of filesystem
}

// readMounts reads mountinfo, oldest mount first.
func readMounts() ([]mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	var mounts []mount
	for line := range strings.Lines(string(data)) {
		// 36 35 98:0 /root /mount/point options ... - ext4 /dev/root rw
		about, source, _ := strings.Cut(line, " - ")
		fields := strings.Fields(about)
		if len(fields) < 5 {
			continue
		}
		if device, ok := deviceNumber(fields[2]); ok {
			kind, _, _ := strings.Cut(source, " ")
			mounts = append(mounts, mount{device, unescapeMount(fields[3]), unescapeMount(fields[4]), kind})
		}
	}
	return mounts, nil
}

// homes returns, for each filesystem, by its device number, the path at which
// the whole of it is mounted. Where there are several, the first. A filesystem
// that only shows a part of itself has none.
func homes(mounts []mount) map[uint32][]string {
	found := map[uint32][]string{}
	for _, m := range mounts {
		if _, known := found[m.device]; m.root == "/" && !known {
			found[m.device] = components(m.point)
		}
	}
	return found
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

// followMounts keeps up with what is mounted until ctx is done: the kernel's
// table of mounts, where what it does not know yet is denied, and the built-in
// guardrail.
func (d *Daemon) followMounts(ctx context.Context) error {
	// Not an os.File: the runtime would poll it too, and a change is told once.
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("watch the mounts: %w", err)
	}
	// After it was opened, so that nothing is missed in between.
	if err := errors.Join(d.setHomes(), d.guardMounts()); err != nil {
		unix.Close(fd)
		return err
	}
	go func() {
		defer unix.Close(fd)
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		for ctx.Err() == nil {
			// mountinfo is ready with POLLPRI and POLLERR when something changed.
			if n, err := unix.Poll(poll, int(time.Second.Milliseconds())); n == 0 || err != nil {
				continue
			}
			d.mountsChanged()
		}
	}()
	return nil
}

func (d *Daemon) mountsChanged() {
	if err := d.setHomes(); err != nil {
		d.log.Error("the kernel's table of mounts is not up to date", "error", err)
	}
	if err := d.guardMounts(); err != nil {
		d.log.Error("the built-in guardrail does not know what was mounted", "error", err)
	}
}

func (d *Daemon) setHomes() error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	return d.kernel.SetHomes(homes(mounts))
}
