// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Major numbers of character devices, as in the kernel's list of devices; see
// refused_device in bpf/file.bpf.h for what is refused.
const (
	memoryMajor  = 1
	consoleMajor = 4 // virtual consoles; from minor 64 on serial lines
	ttyMajor     = 5
	screenMajor  = 7
	miscMajor    = 10
	ptyMajor     = 136 // to 143: pseudoterminals
)

// ownTerminals notes what a process is controlled by, and what it made.
func (x *inspection) ownTerminals(pid int, open []descriptor) error {
	s, err := processStat(pid)
	if err != nil {
		return err
	}
	// As new_encode_dev() of the kernel packs it.
	x.terminals[unix.Mkdev(uint32(s.terminal>>8&0xfff), uint32(s.terminal&0xff|s.terminal>>12&0xfff00))] = true
	for i := range open {
		if open[i].slave != 0 {
			x.terminals[open[i].slave] = true
		}
	}
	return nil
}

// refusedDevice says why the programs let nobody open a device, whatever its
// path; "": they don't.
func (x *inspection) refusedDevice(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return "it is a block device, which no session may open"
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return ""
	}
	minor := unix.Minor(st.Rdev)
	switch major := unix.Major(st.Rdev); {
	case major == memoryMajor && slices.Contains([]uint32{1, 2, 4, 11}, minor):
		return "it is the host's memory or log, which no session may open"
	case major == consoleMajor && minor < 64, major == ttyMajor && minor == 1, major == screenMajor:
		return "it is a console of the host, which no session may open"
	case major == miscMajor && slices.Contains([]uint32{200, 223, 229, 236, 237, 238, 241}, minor):
		return "it makes new devices, and no session may open it"
	case isPTY(major) && !x.terminals[st.Rdev]:
		return "it is a terminal of somebody else's"
	}
	return ""
}

func isPTY(major uint32) bool { return major >= ptyMajor && major < ptyMajor+8 }

// isTerminal: a console, a serial line or a pseudoterminal.
func isTerminal(link string) bool {
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	major := unix.Major(st.Rdev)
	return major == consoleMajor || major == ttyMajor || isPTY(major)
}
