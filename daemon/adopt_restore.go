// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"strings"

	"bailiff.dev/bailiff/internal/cgroup"
)

// clearStaging settles what an earlier daemon stopped and was killed over: a tree of
// which nothing is in its session goes on as it was, but for its cgroup; one that is
// partly there is killed; one that is all there goes on when its session is restored.
func (d *Daemon) clearStaging() error {
	groups, err := d.parent.AllBeside(stagingPrefix)
	if err != nil {
		return err
	}
	for _, group := range groups {
		err = errors.Join(err, d.clearTree(group))
	}
	return err
}

func (d *Daemon) clearTree(staging *cgroup.Group) error {
	standing, err := staging.Populated()
	if err != nil {
		return err
	}
	if !standing {
		return staging.Remove()
	}
	name := strings.TrimPrefix(staging.Path, d.parent.Path+"-"+stagingPrefix)
	entered := false
	s, known := d.sessions.find(name)
	if known && s.group != nil {
		if entered, err = s.group.Populated(); err != nil {
			return err
		}
	}
	if entered {
		d.log.Warn("a tree that was being adopted when bailiffd was killed is killed: half of it was confined", "session", name)
		return errors.Join(staging.Kill(), s.group.Kill(), staging.Thaw(), staging.Remove())
	}
	d.log.Warn("a tree that was being looked at when bailiffd was killed goes on, unconfined, in a cgroup that stays until it has ended", "cgroup", staging.Path)
	return staging.Thaw()
}
