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
	slave  uint64 // device number of the pseudoterminal whose master it is; 0: it is none
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
			err = f.readInfo(pid)
		}
		if err != nil {
			return nil, fmt.Errorf("look at the open files of process %d: %w", pid, err)
		}
		list = append(list, f)
	}
	return list, nil
}

// readInfo reads what is not in the link.
func (f *descriptor) readInfo(pid int) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, f.number))
	if err != nil {
		return err
	}
	found := false
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = strings.TrimSpace(value); name {
		case "flags":
			flags, err := strconv.ParseInt(value, 8, 64)
			if err != nil {
				return err
			}
			f.flags, found = int(flags), true
		case "tty-index":
			index, err := strconv.ParseUint(value, 10, 20)
			if err != nil {
				return err
			}
			f.slave = unix.Mkdev(ptyMajor, uint32(index))
		}
	}
	if !found {
		return fmt.Errorf("descriptor %d shows no flags", f.number)
	}
	return nil
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
