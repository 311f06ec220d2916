// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/cgroup"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// What a daemon that was killed had stopped goes on, is killed where a part of it is
// confined, and stays where all of it is.
func TestClearStaging(t *testing.T) {
	kerneltest.RequireRoot(t)
	for _, x := range []struct {
		name              string
		standing, entered bool
		lives             bool
	}{
		{"before the session", true, false, true},
		{"halfway", true, true, false},
		{"after the last one moved", false, true, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			parent, err := cgroup.Open(fmt.Sprintf("bailiff-restore-%d", os.Getpid()))
			if err != nil {
				t.Fatal(err)
			}
			d := &Daemon{parent: parent, log: slog.New(slog.DiscardHandler)}
			s := &session{sessionRecord: sessionRecord{ID: "s-1", Number: 1}}
			d.sessions.byID, d.sessions.byNumber = map[string]*session{}, map[uint64]*session{}
			d.sessions.add(s)
			group, err := parent.Make(s.ID)
			if err != nil {
				t.Fatal(err)
			}
			s.group = group
			staging, err := parent.Beside(stagingPrefix + s.ID)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for _, g := range []*cgroup.Group{staging, group} {
					_ = g.Kill() // it may be gone
					if err := g.Remove(); err != nil {
						t.Error(err)
					}
				}
				if err := parent.Remove(); err != nil {
					t.Error(err)
				}
			})
			var pids []int
			for g, wanted := range map[*cgroup.Group]bool{staging: x.standing, group: x.entered} {
				if !wanted {
					continue
				}
				pid := shellTree(t, "")
				if err := errors.Join(g.Freeze(), g.Add(pid), g.Stopped(stopLimit)); err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			if err := d.clearStaging(); err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				s, err := processStat(pid)
				for range 500 { // one that was killed takes a moment to end
					if x.lives || err != nil || s.ended() {
						break
					}
					time.Sleep(10 * time.Millisecond)
					s, err = processStat(pid)
				}
				if (err == nil && !s.ended()) != x.lives {
					t.Errorf("process %d: %+v %v, lives: %v", pid, s, err, x.lives)
				}
			}
			if groups, err := parent.AllBeside(stagingPrefix); err != nil || (len(groups) == 0) == (x.standing && x.lives) {
				t.Errorf("left: %v %v", groups, err)
			}
		})
	}
}
