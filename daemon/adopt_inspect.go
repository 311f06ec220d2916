// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// What is done with a thing that is older than the session.
const (
	verdictFine       = "fine"        // the policy allows it
	verdictJudged     = "judged"      // at each use
	verdictClosed     = "closed"      // it was destroyed
	verdictNotCovered = "not-covered" // it stays usable
	verdictKill       = "kill"        // not with its process
)

// Kinds of things that are older than a session.
const (
	kindFile, kindSocket, kindMapping = "file", "socket", "mapping"
	kindRing, kindThread, kindOther   = "ring", "thread", "other"
)

// inspection is what the processes of a tree, which stand still, were found to have.
type inspection struct {
	ruleset *policy.Ruleset
	tree    *tree
	devices map[uint64]bool // of mounted file systems
	sockets socketTables
	// device numbers of the pseudoterminals that control the tree, or that it made
	terminals map[uint64]bool

	report     []*controlv1.Predating
	impossible []string     // why the tree cannot be adopted, whatever is killed
	forbidden  map[int]bool // processes that have what is forbidden
	limits     []string
}

// inspect looks at each process of a tree.
func inspect(t *tree, r *policy.Ruleset) (*inspection, error) {
	x := &inspection{ruleset: r, tree: t, forbidden: map[int]bool{}, terminals: map[uint64]bool{}}
	var err error
	if x.devices, err = mountedDevices(); err != nil {
		return x, err
	}
	open := map[int][]descriptor{}
	for _, m := range t.members {
		if open[m.pid], err = descriptors(m.pid); err != nil {
			return x, err
		}
		if err := x.ownTerminals(m.pid, open[m.pid]); err != nil {
			return x, err
		}
	}
	if x.sockets, err = listSockets(t.pids(), open); err != nil {
		return x, err
	}
	for _, m := range t.members {
		if err := x.threads(m.pid); err != nil {
			return x, err
		}
		for i := range open[m.pid] {
			if err := x.descriptor(m.pid, &open[m.pid][i]); err != nil {
				return x, err
			}
		}
		if err := x.mappings(m.pid); err != nil {
			return x, err
		}
	}
	return x, errors.Join(x.tracers(), x.tellLimits())
}

// note adds a line to the report.
func (x *inspection) note(pid int, kind, what, verdict, why string) {
	x.report = append(x.report, &controlv1.Predating{Pid: uint32(pid), Kind: kind, What: what, Verdict: verdict, Why: why})
	if verdict == verdictKill {
		x.forbidden[pid] = true
	}
}

// cannot notes what rules the adoption out.
func (x *inspection) cannot(pid int, kind, what, why string) {
	x.note(pid, kind, what, verdictKill, why)
	x.impossible = append(x.impossible, fmt.Sprintf("process %d has %s: %s", pid, what, why))
}

// path judges rights on an object by its path.
func (x *inspection) path(path string, access policy.Access) (verdict, why string) {
	judged, err := x.ruleset.JudgePath(x.self(path), access)
	switch {
	case err != nil:
		return verdictKill, "it cannot be judged: " + err.Error()
	case judged.Allow:
		return verdictFine, "the policy allows to " + access.String() + ": " + x.rule(judged)
	case x.ruleset.Audit && !judged.Guard:
		return verdictFine, "in audit mode nothing is denied; the policy does not allow to " + judged.Right.String() + ": " + x.rule(judged)
	}
	return verdictKill, "the policy does not allow to " + judged.Right.String() + ": " + x.rule(judged) + "; nothing would judge it again"
}

func (x *inspection) rule(judged policy.Decision) string {
	if judged.Rule == 0 {
		return "no line names it"
	}
	return x.ruleset.Rules[judged.Rule].ID
}

// self calls the processes of the tree on procfs what the rules call them.
func (x *inspection) self(path string) string {
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok {
		return path
	}
	number, rest, deeper := strings.Cut(rest, "/")
	pid, err := strconv.Atoi(number)
	if err != nil || x.tree.byPID[pid] == nil {
		return path
	}
	if !deeper {
		return "/proc/self"
	}
	return "/proc/self/" + rest
}

// threads looks for those that the kernel added: they act without being judged.
func (x *inspection) threads(pid int) error {
	leader, err := processStat(pid)
	if err != nil {
		return err
	}
	if leader.leaderless() {
		x.cannot(pid, kindThread, "threads, and a first one that has ended", "its label would be nowhere: end that process, and try again")
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return fmt.Errorf("look at the threads of process %d: %w", pid, err)
	}
	for _, task := range tasks {
		s, err := readStat(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		if hasEnded(err) {
			continue
		}
		if err != nil {
			return err
		}
		if s.flags&flagKernelWorker != 0 {
			x.cannot(pid, kindThread, "a thread of io_uring", whyRing)
		}
	}
	return nil
}

const whyRing = "what is asked of a ring that is older than the session is not judged: end that process, or the use of io_uring in it, and try again"

// mappings looks at the files that a process has in its memory.
func (x *inspection) mappings(pid int) error {
	list, err := mappingsOf(pid)
	if err != nil {
		return err
	}
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil && !hasEnded(err) {
		return fmt.Errorf("look at the program of process %d: %w", pid, err)
	}
	program = strings.TrimSuffix(program, " (deleted)")
	seen := map[string]policy.Access{}
	for _, m := range list {
		if m.path == program { // running it is no reading
			m.access = m.access&^policy.Read | policy.Execute
		}
		if seen[m.path]&m.access == m.access {
			continue
		}
		seen[m.path] |= m.access
		verdict, why := x.object(fmt.Sprintf("/proc/%d/map_files/%s", pid, m.region), m.path, m.gone, m.access)
		x.note(pid, kindMapping, m.path, verdict, why)
	}
	return x.ringMappings(pid)
}

// ringMappings looks for rings whose descriptors are closed.
func (x *inspection) ringMappings(pid int) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return fmt.Errorf("read the mappings of process %d: %w", pid, err)
	}
	if strings.Contains(string(data), "anon_inode:[io_uring]") {
		x.cannot(pid, kindRing, "an io_uring in its memory", whyRing)
	}
	return nil
}

// inMemory are names of what is memory rather than a file.
var inMemory = [...]string{"/memfd:", "/dev/zero", "/SYSV", "/[aio]", "/anon_hugepage", "/secretmem"}

// object judges what a link of /proc leads to by the path that it shows, if that
// path leads there.
func (x *inspection) object(link, path string, deleted bool, access policy.Access) (verdict, why string) {
	var there, here unix.Stat_t
	if err := unix.Stat(link, &there); err != nil {
		return verdictKill, fmt.Sprintf("it cannot be looked at: %v", err)
	}
	if why := x.refusedDevice(&there); why != "" {
		return verdictKill, why
	}
	if deleted && there.Nlink == 0 || strings.HasPrefix(path, "/[aio]") {
		internal := slices.ContainsFunc(inMemory[:], func(prefix string) bool { return strings.HasPrefix(path, prefix) })
		switch {
		case x.devices[there.Dev]:
			return x.path(path, access)
		case internal:
			return verdictFine, "it is memory"
		}
		return verdictKill, "it was deleted, and no path tells what it was"
	}
	if deleted {
		path += " (deleted)" // which is its name
	}
	if err := unix.Lstat(path, &here); err != nil || here.Dev != there.Dev || here.Ino != there.Ino {
		return verdictKill, "that path does not lead to it on this host, so none can be judged"
	}
	return x.path(path, access)
}

// mountedDevices returns the device numbers of what is mounted here.
func mountedDevices() (map[uint64]bool, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look at the mounts: %w", err)
	}
	devices := map[uint64]bool{}
	for line := range strings.Lines(string(data)) {
		var id, parent int
		var major, minor uint32
		if _, err := fmt.Sscanf(line, "%d %d %d:%d", &id, &parent, &major, &minor); err != nil {
			return nil, fmt.Errorf("look at the mounts: %w", err)
		}
		devices[unix.Mkdev(major, minor)] = true
	}
	return devices, nil
}

// tracers looks for processes of the tree that trace others: they could have those
// act for them.
func (x *inspection) tracers() error {
	pids, err := allPIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if x.tree.byPID[pid] != nil {
			continue
		}
		fields, err := statusFields(pid)
		if hasEnded(err) {
			continue
		}
		if err != nil {
			return err
		}
		tracer, _ := strconv.Atoi(fields["TracerPid"])
		if x.tree.byPID[tracer] != nil {
			x.note(tracer, kindOther, fmt.Sprintf("traces process %d", pid), verdictKill, "that one is not in the tree, and would act for it")
		}
	}
	return nil
}

// tellLimits says what a session that `bailiff run` starts has, and this has not.
func (x *inspection) tellLimits() error {
	raised, unfiltered := 0, 0
	for _, m := range x.tree.members {
		fields, err := statusFields(m.pid)
		if err != nil {
			return err
		}
		if fields["NoNewPrivs"] != "1" {
			raised++
		}
		if fields["Seccomp"] != "2" {
			unfiltered++
		}
	}
	of := fmt.Sprintf("of %d processes", len(x.tree.members))
	if raised > 0 {
		x.limits = append(x.limits, fmt.Sprintf("no_new_privs is not set in %d %s, and cannot be from outside: set-user-ID programs still change their user", raised, of))
	}
	if unfiltered > 0 {
		x.limits = append(x.limits, fmt.Sprintf("no seccomp filter is set in %d %s, and cannot be from outside: the kernel programs deny what they see without it", unfiltered, of))
	}
	x.limits = append(x.limits, "the environment is what it was: variables that the policy drops are still there",
		"the capabilities are what they were: each use of one that the policy does not name is denied",
		"what was read before is known")
	return nil
}
