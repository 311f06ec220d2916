// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// stagedTechniques are those that the test has a part in.
func stagedTechniques() []technique {
	const where = "a process that root put there from outside"
	return []technique{
		{
			id: "moved-in-open", title: "open a file, in a session's cgroup, by " + where, hooks: "cgroup_attach_task, file_open",
			seen: "open", stage: func(t *testing.T, r *run) []*attempt { return r.movedIn(t, "open", "") },
		},
		{
			id: "moved-in-connect", title: "connect, in a session's cgroup, by " + where, hooks: "cgroup_attach_task, connect4/6",
			seen: "connect", basic: true, stage: func(t *testing.T, r *run) []*attempt { return r.movedIn(t, "connect-address", "") },
		},
		{
			id: "unknown-cgroup-open", title: "open a file, in a cgroup beside the sessions', by " + where, hooks: "cgroup_attach_task, file_open",
			unrecorded: "there is no session to tell it of",
			stage:      func(t *testing.T, r *run) []*attempt { return r.movedIn(t, "open", "nobodys") },
		},
		{
			id: "unknown-cgroup-connect", title: "connect, in a cgroup beside the sessions', by " + where, hooks: "connect4/6, egress",
			unrecorded: "there is no session to tell it of", basic: true,
			stage: func(t *testing.T, r *run) []*attempt {
				return r.movedIn(t, "connect-address", "nobodys")
			},
		},
		{
			id: "flood", title: "drown another agent's records in one's own", hooks: "limits for each agent", long: true, unrecorded: "it is about records",
			stage: func(t *testing.T, r *run) []*attempt { return r.flood(t) },
		},
	}
}

// movedIn has a process that was started outside try a technique, before and
// after it was put into a cgroup: a session's, or one beside it that is made.
func (r *run) movedIn(t *testing.T, id, beside string) []*attempt {
	t.Helper()
	holder, task := r.hire(t, &world{policy: "narrow", bare: true})
	defer holder.dismiss()
	group := filepath.Join(r.field.Sessions, beside)
	if beside == "" {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", holder.cmd.Process.Pid))
		must(t, err)
		for line := range strings.Lines(string(text)) {
			if path, ok := strings.CutPrefix(line, "0::"); ok {
				group = filepath.Join(r.field.Cgroup, strings.TrimSpace(path))
			}
		}
	} else {
		must(t, os.Mkdir(group, 0o755))
		defer func() { eventually(patience, func() bool { return os.Remove(group) == nil }) }()
	}
	worker, _ := r.hire(t, &world{})
	defer worker.dismiss()
	free, err := worker.do(order{ID: id})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(worker.cmd.Process.Pid)), 0))
	got, err := worker.do(order{ID: id})
	must(t, err)
	return []*attempt{{world: &world{}, attack: free}, {world: &world{policy: "narrow", bare: true}, attack: got, task: task}}
}

// So many denials one session makes, while another makes a few.
const (
	floodOf = 20_000
	quietOf = 200
)

// flood has one session fill the log, and looks for the records of another.
func (r *run) flood(t *testing.T) []*attempt {
	t.Helper()
	loud, _ := r.hire(t, &world{policy: "narrow", bare: true})
	defer loud.dismiss()
	quiet, task := r.hire(t, &world{policy: "loose", bare: true})
	defer quiet.dismiss()
	over := make(chan answer, 1)
	go func() {
		a, err := loud.do(order{ID: floodID})
		if err != nil {
			a.Text = err.Error()
		}
		over <- a
	}()
	own, err := quiet.do(order{ID: quietID})
	must(t, err)
	if flooded := <-over; !flooded.Held {
		t.Errorf("the flood: %+v", flooded)
	}
	return []*attempt{{world: &world{}, attack: answer{Done: true}}, {world: &world{policy: "loose", bare: true}, attack: own, task: task, expect: quietOf}}
}

// What a worker does for the flood: many denials of the same kind, each of a
// file of its own, so that none can be folded into another.
const (
	floodID = "flood-loud"
	quietID = "flood-quiet"
)

func (f *field) deny(id string) error {
	pattern, n := f.Dir+"/secret/loud-%d", floodOf
	if id == quietID {
		pattern, n = f.State+"/quiet-%d", quietOf
	}
	for i := range n {
		fd, err := unix.Open(fmt.Sprintf(pattern, i), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err == nil {
			return unix.Close(fd)
		}
	}
	return fmt.Errorf("%w: all %d were denied", errHeld, n)
}
