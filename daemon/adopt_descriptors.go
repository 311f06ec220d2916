// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// descriptor is an open file of a process that stands still.
type descriptor struct {
	number int
	link   string // in /proc, which leads to it
	what   string // as that link shows it
	flags  int    // of open(2)
}

// inode returns the inode of a socket; 0: it is none.
func (f *descriptor) inode() uint32 {
	number, ok := strings.CutPrefix(f.what, "socket:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32)
	if !ok || err != nil {
		return 0
	}
	return uint32(n)
}

// descriptors lists what a process has open.
func descriptors(pid int) (list []descriptor, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, fmt.Errorf("list the open files of process %d: %w", pid, err)
	}
	for _, entry := range entries {
		f := descriptor{link: fmt.Sprintf("/proc/%d/fd/%s", pid, entry.Name())}
		if f.number, err = strconv.Atoi(entry.Name()); err == nil {
			f.what, err = os.Readlink(f.link)
		}
		if err == nil {
			f.flags, err = openFlags(pid, entry.Name())
		}
		if err != nil {
			return nil, fmt.Errorf("look at the open files of process %d: %w", pid, err)
		}
		list = append(list, f)
	}
	return list, nil
}

func openFlags(pid int, number string) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, number))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if octal, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, err := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
			return int(flags), err
		}
	}
	return 0, fmt.Errorf("descriptor %s shows no flags", number)
}

// access returns the rights that reading and writing the file takes.
func (f *descriptor) access() policy.Access {
	switch f.flags & unix.O_ACCMODE {
	case unix.O_RDONLY:
		return policy.Read
	case unix.O_WRONLY:
		return policy.Write
	}
	return policy.Read | policy.Write
}

// anonymousFine are the anonymous files that reach nothing but the process itself, or
// that each use of is judged.
var anonymousFine = [...]string{"[eventpoll]", "[eventfd]", "[timerfd]", "[signalfd]", "[pidfd]", "inotify", "[landlock-ruleset]", "dmabuf"}

// descriptor looks at one open file.
func (x *inspection) descriptor(pid int, f *descriptor) error {
	if f.inode() != 0 {
		return x.socket(pid, f)
	}
	name := fmt.Sprintf("%d: %s", f.number, f.what)
	anonymous, ok := strings.CutPrefix(f.what, "anon_inode:")
	switch {
	case ok && anonymous == "[io_uring]":
		x.cannot(pid, kindRing, name, whyRing)
	case ok && slices.Contains(anonymousFine[:], anonymous):
		x.note(pid, kindOther, name, verdictFine, "it reaches nothing that is judged")
	case ok:
		x.note(pid, kindOther, name, verdictKill, "no session could make it, and nothing would judge its use")
	case strings.HasPrefix(f.what, "pipe:["):
		x.note(pid, kindOther, name, verdictNotCovered, "what goes through it is judged by nobody")
	case !filepath.IsAbs(f.what):
		x.note(pid, kindOther, name, verdictJudged, "entering a namespace is")
	case f.flags&unix.O_PATH != 0:
		x.note(pid, kindFile, name, verdictJudged, "what is opened from there is")
	default:
		x.file(pid, name, f)
	}
	return nil
}

func (x *inspection) file(pid int, name string, f *descriptor) {
	path, deleted := strings.CutSuffix(f.what, " (deleted)")
	verdict, why := x.object(f.link, path, deleted, f.access())
	if verdict == verdictKill && f.number <= 2 && isTerminal(f.link) {
		verdict, why = verdictNotCovered, "it is the terminal, which sessions keep"
	}
	x.note(pid, kindFile, name, verdict, why)
}

// isTerminal: a console, a serial line or a pseudo terminal.
func isTerminal(link string) bool {
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	major := unix.Major(st.Rdev)
	return major == 4 || major == 5 || major >= 136 && major <= 143
}
