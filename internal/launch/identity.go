// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Identity is the user a command runs as.
type Identity struct {
	Name   string
	UID    int
	GID    int
	Groups []int  // supplementary groups
	Home   string // "/" where the user has none that we know
}

// ResolveIdentity says whom the command runs as: the user named (a name or a
// number; this needs root), else under sudo the user who called it, else nil,
// which means the caller. Users and groups are read from /etc/passwd and
// /etc/group.
func ResolveIdentity(name string, euid int, getenv func(string) string) (*Identity, error) {
	switch {
	case name != "" && euid != 0:
		return nil, failure(ExitFailed, "--user %s: only root can run a command as another user: leave --user out, or use sudo", name)
	case name != "":
		return namedIdentity(name)
	case euid == 0 && getenv("SUDO_UID") != "" && getenv("SUDO_UID") != "0":
		return sudoIdentity(getenv)
	}
	return nil, nil
}

func namedIdentity(name string) (*Identity, error) {
	u, err := user.Lookup(name)
	if _, numeric := strconv.Atoi(name); err != nil && numeric == nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		return nil, failure(ExitFailed, "--user %s: no such user in /etc/passwd: check the name with getent passwd", name)
	}
	return fromPasswd(u)
}

// sudoIdentity falls back on what sudo tells where the user is not in
// /etc/passwd but in a directory that only libc can ask.
func sudoIdentity(getenv func(string) string) (*Identity, error) {
	if u, err := user.LookupId(getenv("SUDO_UID")); err == nil {
		return fromPasswd(u)
	}
	uid, uidErr := strconv.ParseUint(getenv("SUDO_UID"), 10, 31)
	gid, gidErr := strconv.ParseUint(getenv("SUDO_GID"), 10, 31)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, failure(ExitFailed, "read SUDO_UID and SUDO_GID: %v: say --user NAME", err)
	}
	id := &Identity{Name: getenv("SUDO_USER"), UID: int(uid), GID: int(gid), Groups: []int{int(gid)}, Home: "/"}
	if home := getenv("SUDO_HOME"); home != "" {
		id.Home = home
	}
	return id, nil
}

func fromPasswd(u *user.User) (*Identity, error) {
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	names, groupsErr := u.GroupIds()
	if err := errors.Join(uidErr, gidErr, groupsErr); err != nil {
		return nil, failure(ExitFailed, "look up the groups of %s: %v: check /etc/passwd and /etc/group", u.Username, err)
	}
	id := &Identity{Name: u.Username, UID: uid, GID: gid, Home: u.HomeDir}
	for _, name := range names {
		if g, err := strconv.Atoi(name); err == nil {
			id.Groups = append(id.Groups, g)
		}
	}
	if id.Home == "" {
		id.Home = "/"
	}
	return id, nil
}

// assume makes every thread of this process run as id, for good. A user other
// than root has nothing to keep, so that the bounding set is emptied while that
// can be done.
func (id *Identity) assume() error {
	if id.UID != 0 {
		if err := limitBounding(0); err != nil {
			return err
		}
	}
	if err := syscall.Setgroups(id.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setresgid(id.GID, id.GID, id.GID); err != nil {
		return fmt.Errorf("set group %d: %w", id.GID, err)
	}
	if err := syscall.Setresuid(id.UID, id.UID, id.UID); err != nil {
		return fmt.Errorf("set user %d: %w", id.UID, err)
	}
	if r, e, s := unix.Getresuid(); r != id.UID || e != id.UID || s != id.UID {
		return fmt.Errorf("set user %d: still %d, %d, %d", id.UID, r, e, s)
	}
	return nil
}
