// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// hostProbes tells what can be seen without root and without a daemon.
func hostProbes() []probe {
	return []probe{kernelProbe(), lsmProbe(), cgroupProbe(), landlockProbe(), btfProbe()}
}

func kernelProbe() probe {
	p := probe{Name: "kernel"}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		p.Result = err.Error()
		return p
	}
	release := unix.ByteSliceToString(u.Release[:])
	p.Result = release + " " + unix.ByteSliceToString(u.Machine[:])
	var major, minor int
	_, err := fmt.Sscanf(release, "%d.%d", &major, &minor)
	if p.OK = err == nil && (major > 6 || major == 6 && minor >= 1); !p.OK {
		p.Remedy = "the full tier needs Linux 6.1 or later"
	}
	return p
}

func lsmProbe() probe {
	p := probe{Name: "active LSMs"}
	text, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		p.Result = "not to be seen: " + reason(err)
		p.Remedy = "mount -t securityfs securityfs /sys/kernel/security"
		return p
	}
	list := strings.TrimSpace(string(text))
	p.Result = list
	if p.OK = slices.Contains(strings.Split(list, ","), "bpf"); !p.OK {
		p.Remedy = "the full tier needs bpf among them: boot with lsm=" + list + ",bpf"
	}
	return p
}

func cgroupProbe() probe {
	p := probe{Name: "cgroup v2"}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		p.Result = reason(err)
		return p
	}
	if at := cgroup2Mount(string(text)); at != "" {
		p.OK, p.Result = true, at
		return p
	}
	p.Result = "not mounted"
	p.Remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
	return p
}

// cgroup2Mount finds where mountinfo says that cgroup v2 is, or returns "".
func cgroup2Mount(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if ok && strings.HasPrefix(right, "cgroup2 ") && len(fields) >= 5 {
			return fields[4]
		}
	}
	return ""
}

func landlockProbe() probe {
	p := probe{Name: "Landlock"}
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		p.Result = reason(errno)
		p.Remedy = "the basic tier needs it: boot with landlock among lsm="
		return p
	}
	p.OK, p.Result = true, fmt.Sprintf("ABI %d", abi)
	return p
}

func btfProbe() probe {
	p := probe{Name: "kernel BTF"}
	info, err := os.Stat("/sys/kernel/btf/vmlinux")
	if err != nil {
		p.Result = reason(err)
		p.Remedy = "both tiers need a kernel built with CONFIG_DEBUG_INFO_BTF"
		return p
	}
	p.OK, p.Result = true, fmt.Sprintf("%d bytes", info.Size())
	return p
}

// reason is an error without the call and the path that it names.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
