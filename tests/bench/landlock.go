// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// grant is a path and what Landlock is to allow on it and below.
type grant struct {
	Path   string
	Access policy.Access
}

const maxPaths = 10_000 // that one pattern may expand to

// grants returns what Landlock can do of a ruleset on this machine, now: the
// rules that its launcher would give it on the basic tier.
func grants(r *policy.Ruleset, docs []policy.Document) ([]grant, error) {
	view, _ := r.Landlock(docs)
	var list []grant
	root := os.DirFS("/")
	for i := range view.Paths {
		p := &view.Paths[i]
		paths, err := p.Expand(root, maxPaths)
		if err != nil {
			return nil, fmt.Errorf("expand %s: %w", r.Rules[p.Rule].ID, err)
		}
		for _, path := range paths {
			rights := p.Access & r.Rights(components(path))
			if rights != 0 {
				list = append(list, grant{path, rights})
			}
		}
	}
	return list, nil
}

const fileRights = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSExecute | ll.AccessFSTruncate

// landlockRights is what an access set means to Landlock.
func landlockRights(a policy.Access) (rights uint64) {
	for _, m := range []struct {
		access policy.Access
		rights uint64
	}{
		{policy.Read, ll.AccessFSReadFile | ll.AccessFSReadDir},
		{policy.Write, ll.AccessFSWriteFile | ll.AccessFSTruncate},
		{policy.Create, ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSMakeSym | ll.AccessFSMakeFifo | ll.AccessFSMakeSock | ll.AccessFSRefer},
		{policy.Delete, ll.AccessFSRemoveFile | ll.AccessFSRemoveDir | ll.AccessFSRefer},
		{policy.Execute, ll.AccessFSExecute},
	} {
		if a&m.access != 0 {
			rights |= m.rights
		}
	}
	return rights
}

// restrict puts the calling thread under Landlock.
func restrict(grants []grant) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return fmt.Errorf("landlock is not available: %w: boot with landlock in lsm=", err)
	}
	attr := ll.RulesetAttr{HandledAccessFS: 1<<13 - 1 | ll.AccessFSRefer}
	if abi >= 3 {
		attr.HandledAccessFS |= ll.AccessFSTruncate
	}
	ruleset, err := ll.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return fmt.Errorf("landlock create ruleset: %w", err)
	}
	defer unix.Close(ruleset)
	for _, g := range grants {
		if err := allow(ruleset, attr.HandledAccessFS, g); err != nil {
			return fmt.Errorf("landlock allow %s: %w", g.Path, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no new privileges: %w", err)
	}
	if err := ll.LandlockRestrictSelf(ruleset, 0); err != nil {
		return fmt.Errorf("landlock restrict self: %w", err)
	}
	return nil
}

func allow(ruleset int, handled uint64, g grant) error {
	fd, err := unix.Open(g.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	rights := landlockRights(g.Access) & handled
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	if rights == 0 {
		return nil
	}
	return ll.LandlockAddPathBeneathRule(ruleset, &ll.PathBeneathAttr{AllowedAccess: rights, ParentFd: fd}, 0)
}
