// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// Access bits of a LandlockPath, as policy.Access has them.
const (
	accessRead = 1 << iota
	accessWrite
	accessCreate
	accessDelete
	accessExecute
	accessConnect
)

// Rights that a file which is no directory can have; the kernel refuses others.
const fileRights = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate |
	ll.AccessFSExecute | ll.AccessFSIoctlDev | ll.AccessFSResolveUnix

// landlockStep is what one ABI version added. What a kernel can't handle stays
// open: the gap says so in words. Rights without a gap were always denied
// before they could be granted.
type landlockStep struct {
	abi   int
	files uint64
	scope uint64
	gap   string
}

// noABI: so far, no version restricts it.
const noABI = math.MaxInt

func landlockSteps() []landlockStep {
	return []landlockStep{
		{abi: 1, files: 1<<13 - 1},
		{abi: 2, files: ll.AccessFSRefer},
		{abi: 3, files: ll.AccessFSTruncate, gap: "truncating files"},
		{abi: 5, files: ll.AccessFSIoctlDev, gap: "ioctl on devices"},
		{abi: 6, scope: ll.ScopeAbstractUnixSocket | ll.ScopeSignal, gap: "abstract Unix sockets and signals to other processes"},
		{abi: 9, files: ll.AccessFSResolveUnix, gap: "connecting to Unix sockets by path"},
		{abi: noABI, gap: "changing modes, owners, times and attributes of files"},
		{abi: noABI, gap: "running a readable file through the dynamic loader"},
	}
}

// landlockFor adds up the steps that a kernel of this ABI takes. Network
// rights are left alone: the cgroup programs judge the network.
func landlockFor(abi int) (attr ll.RulesetAttr, gaps []string) {
	for _, s := range landlockSteps() {
		switch {
		case s.abi <= abi:
			attr.HandledAccessFS |= s.files
			attr.Scoped |= s.scope
		case s.gap != "":
			gaps = append(gaps, s.gap)
		}
	}
	return attr, gaps
}

// landlockRights is what an access set means on a directory, or on a file.
// Renaming is deleting here and creating there, so both give refer; the kernel
// still refuses a move or a link to where more would be allowed. Device nodes
// are never made: no policy can ask for them.
func landlockRights(access uint32, directory bool) uint64 {
	var rights uint64
	for _, m := range []struct {
		bit    uint32
		rights uint64
	}{
		{accessRead, ll.AccessFSReadFile | ll.AccessFSReadDir},
		{accessWrite, ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev},
		{accessCreate, ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSMakeSym | ll.AccessFSMakeFifo | ll.AccessFSMakeSock | ll.AccessFSRefer},
		{accessDelete, ll.AccessFSRemoveFile | ll.AccessFSRemoveDir | ll.AccessFSRefer},
		{accessExecute, ll.AccessFSExecute},
		{accessConnect, ll.AccessFSResolveUnix},
	} {
		if access&m.bit != 0 {
			rights |= m.rights
		}
	}
	if !directory {
		rights &= fileRights
	}
	return rights
}

// restrictFiles denies this thread, and what it execs and forks, every file
// that l doesn't grant. It returns what this kernel's Landlock leaves open and
// the paths that it did not grant, for the user to read.
func restrictFiles(l *controlv1.Landlock) (warnings []string, err error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return nil, fmt.Errorf("landlock is not available: %w: boot with landlock in lsm=, or use a kernel with BPF LSM", err)
	}
	attr, gaps := landlockFor(abi)
	if len(gaps) > 0 {
		warnings = append(warnings, fmt.Sprintf("not restricted by this kernel's Landlock (ABI %d): %s", abi, strings.Join(gaps, "; ")))
	}
	ruleset, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return nil, fmt.Errorf("landlock create ruleset: %w", err)
	}
	defer unix.Close(ruleset)
	links, err := grantAll(ruleset, attr.HandledAccessFS, l.GetPaths())
	if err != nil {
		return nil, err
	}
	if len(links) > 0 {
		warnings = append(warnings, "not granted, being reached through a symbolic link (name the real path in the policy): "+strings.Join(links, ", "))
	}
	// Only this thread: the others end at the exec.
	if err := ll.LandlockRestrictSelf(ruleset, 0); err != nil {
		return nil, fmt.Errorf("landlock restrict self: %w", err)
	}
	return warnings, nil
}

func grantAll(ruleset int, handled uint64, paths []*controlv1.LandlockPath) (links []string, err error) {
	for _, p := range paths {
		switch err := grant(ruleset, handled, p); {
		case errors.Is(err, syscall.ELOOP):
			if !covered(p, paths) {
				links = append(links, p.GetPath())
			}
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, os.ErrPermission):
			// Gone since the daemon looked, or out of this user's reach
			// anyway: not granting it denies.
		case err != nil:
			return nil, fmt.Errorf("landlock grant %s: %w", p.GetPath(), err)
		}
	}
	return links, nil
}

// covered tells whether what a link leads to is granted under its real path, or
// is not there at all: then nothing is lost by not following the link.
func covered(link *controlv1.LandlockPath, paths []*controlv1.LandlockPath) bool {
	real, err := filepath.EvalSymlinks(link.GetPath())
	return err != nil || slices.ContainsFunc(paths, func(p *controlv1.LandlockPath) bool {
		inside := p.GetPath() == real || strings.HasPrefix(real, strings.TrimSuffix(p.GetPath(), "/")+"/")
		return inside && link.GetAccess()&^p.GetAccess() == 0
	})
}

// grant opens without following any link: a link that an earlier session put in
// the place of a granted path must not carry the grant elsewhere.
func grant(ruleset int, handled uint64, p *controlv1.LandlockPath) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, ownProc(p.GetPath()), &how)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rights := landlockRights(p.GetAccess(), st.Mode&unix.S_IFMT == unix.S_IFDIR) & handled
	if rights == 0 {
		return nil
	}
	return ll.LandlockAddPathBeneathRule(ruleset, &ll.PathBeneathAttr{AllowedAccess: rights, ParentFd: fd}, 0)
}

// ownProc replaces /proc/self, the one link that is the kernel's own.
func ownProc(path string) string {
	rest, ok := strings.CutPrefix(path, "/proc/self")
	if !ok || (rest != "" && rest[0] != '/') {
		return path
	}
	return "/proc/" + strconv.Itoa(os.Getpid()) + rest
}
