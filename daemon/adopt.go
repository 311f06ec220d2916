// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// stagingPrefix begins the names of cgroups that trees stand still in.
const stagingPrefix = "adopt-"

// AdoptSession puts a running tree of processes into a session.
func (d *Daemon) AdoptSession(ctx context.Context, req *connect.Request[controlv1.AdoptSessionRequest]) (*connect.Response[controlv1.AdoptSessionResponse], error) {
	m := req.Msg
	agent, err := launchedAgent(m.Agent)
	if err != nil {
		return nil, err
	}
	if err := checkLaunch(&controlv1.LaunchRequest{Task: m.Task, Context: m.Context}); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if m.Pid == 0 || int32(m.Pid) <= 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%d is no process id: name a running process", m.Pid))
	}
	if !d.kernel.Full() {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New(
			"nothing can be adopted on this host: it has the basic tier, where Landlock confines files, and a process can put that on only itself; "+
				"see `bailiff doctor` for what would raise the tier, or start a session with `bailiff run`"))
	}
	if err := d.live.err(); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%w: see `bailiff doctor` for what would help", err))
	}
	peer, _ := control.PeerFrom(ctx)
	answer, err := d.adopt(peer, agent, m)
	var known *connect.Error
	switch {
	case errors.As(err, &known):
		return nil, known
	case err != nil:
		d.log.Error("a process could not be adopted", "agent", agent, "pid", m.Pid, "error", err)
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("process %d was not adopted: %w", m.Pid, err))
	}
	return connect.NewResponse(answer), nil
}

// adopt stops the tree, looks at it, and moves it into a session or back.
func (d *Daemon) adopt(peer *control.Peer, agent string, m *controlv1.AdoptSessionRequest) (answer *controlv1.AdoptSessionResponse, err error) {
	d.policies.apply.RLock() // no apply between judging by the rules and being judged by them
	defer d.policies.apply.RUnlock()
	ruleset, _, ok := d.policies.forAgent(agent)
	if !ok {
		return nil, noPolicyAbout(agent)
	}
	s := &session{sessionRecord: sessionRecord{
		Agent: agent, Task: m.Task, Context: m.Context, PID: int(m.Pid), Started: d.now(), Tier: d.tier(),
	}}
	s.ID, s.Number = newID()
	protected, err := d.protected(peer.PID)
	if err != nil {
		return nil, err
	}
	t, err := stopTree(d.parent, stagingPrefix+s.ID, s.PID, protected, func(pid int) error { return d.adoptable(pid, protected) })
	defer func() {
		if !t.moved || err != nil {
			err = t.undo(err)
		}
	}()
	if err != nil {
		return nil, err
	}
	x, err := inspect(t, ruleset)
	defer func() { err = errors.Join(err, x.sockets.close()) }()
	if err != nil {
		return nil, err
	}
	answer = &controlv1.AdoptSessionResponse{Report: x.report, Limits: x.limits, Processes: uint32(len(t.members))}
	if answer.Refusal = x.refusal(m.OnForbidden); answer.Refusal != "" || m.DryRun {
		return answer, nil
	}
	return answer, d.takeIn(s, x, answer)
}

// launchedAgent returns the SPIFFE ID of an agent that a session may be of.
func launchedAgent(name string) (string, error) {
	agent, err := policy.ParseSubject(name)
	if err == nil && strings.HasSuffix(agent, "*") {
		err = errors.New("it is a pattern: name one agent")
	}
	if err == nil && ownAgent(agent) {
		err = errors.New("it is one of Bailiff's own: name another")
	}
	if err != nil {
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("agent %q: %w", name, err))
	}
	return agent, nil
}

func noPolicyAbout(agent string) error {
	return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(
		"no policy is about %s: apply one (bailiff policy apply FILE), or see `bailiff policy list`", agent))
}

// protected returns the processes that no tree may hold, with what each is: the
// daemon, who asks, and the ancestors of both.
func (d *Daemon) protected(asking int) (map[int]string, error) {
	list := map[int]string{}
	for _, x := range []struct {
		pid  int
		what string
	}{{asking, "the process that asks"}, {os.Getpid(), "bailiffd"}} {
		what := "is " + x.what
		for pid := x.pid; pid > 0; what = "is an ancestor of " + x.what {
			list[pid] = what
			s, err := processStat(pid)
			if err != nil {
				return nil, err
			}
			pid = s.parent
		}
	}
	list[1] = "is the first process of this host"
	return list, nil
}

// adoptable says why a process cannot be adopted; nil: it can be looked at.
func (d *Daemon) adoptable(pid int, protected map[int]string) error {
	if what := protected[pid]; what != "" {
		return fmt.Errorf("process %d %s: adopt something below it, from elsewhere", pid, what)
	}
	s, err := processStat(pid)
	if err != nil {
		return err
	}
	if s.flags&flagKernelThread != 0 {
		return fmt.Errorf("process %d is a thread of the kernel", pid)
	}
	name, inside, err := d.parent.Of(pid)
	if err != nil {
		return err
	}
	labelled, err := d.labelOf(pid)
	if err != nil {
		return err
	}
	if inside || labelled {
		return fmt.Errorf("process %d is in a session already (%s): see `bailiff sessions list`", pid, name)
	}
	return sameTree(pid)
}

func (d *Daemon) labelOf(pid int) (bool, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false, fmt.Errorf("hold process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	_, ok, err := d.kernel.Labelled(pidfd)
	return ok, err
}

// sameTree says why what a process sees below its root is not of this host's tree.
func sameTree(pid int) error {
	var theirs, ours, root, host unix.Stat_t
	for path, st := range map[string]*unix.Stat_t{
		fmt.Sprintf("/proc/%d/ns/mnt", pid): &theirs, "/proc/self/ns/mnt": &ours, fmt.Sprintf("/proc/%d/root", pid): &root, "/": &host,
	} {
		if err := unix.Stat(path, st); err != nil {
			return fmt.Errorf("look at the mounts of process %d: stat %s: %w", pid, path, err)
		}
	}
	if theirs.Ino != ours.Ino && (root.Dev != host.Dev || root.Ino != host.Ino) {
		return fmt.Errorf("process %d has a root of its own in a mount namespace of its own, as in a container: no path there is one of this host, "+
			"so every file would be denied to it: start the container's command with `bailiff run`", pid)
	}
	return nil
}

// refusal says why a tree is not adopted; empty: it can be.
func (x *inspection) refusal(on controlv1.OnForbidden) string {
	if len(x.impossible) > 0 {
		return "it cannot be made safe: " + strings.Join(slices.Compact(x.impossible), "; ")
	}
	n := len(x.forbidden)
	switch {
	case n == 0:
		return ""
	case on != controlv1.OnForbidden_ON_FORBIDDEN_KILL:
		return fmt.Sprintf("%d of its %d processes have what the policy forbids, see the report: close that, allow it, or have those processes killed (--kill-forbidden)", n, len(x.tree.members))
	case n == len(x.tree.members):
		return "all of its processes have what the policy forbids: nothing would be left to adopt"
	}
	return ""
}

// takeIn makes the session of a tree that was looked at.
func (d *Daemon) takeIn(s *session, x *inspection, answer *controlv1.AdoptSessionResponse) error {
	t := x.tree
	for _, m := range t.members {
		if !x.forbidden[m.pid] {
			continue
		}
		if err := t.kill(m); err != nil {
			return err
		}
		answer.Killed = append(answer.Killed, uint32(m.pid))
	}
	left := t.left()
	first := left[0] // that of the tree, unless it was killed
	s.PID = first.pid
	uid, err := effectiveUser(s.PID)
	if err != nil {
		return err
	}
	s.UID, s.Command = uid, shorten(commandLine(s.PID))
	s.Adopted = &adoptedRecord{Processes: len(left), Killed: len(answer.Killed), Closed: len(x.sockets.doomed)}
	if err := d.confine(s, s.Agent, func(kernel bpf.Session) error { return d.moveIn(s, x, kernel) }); err != nil {
		return err
	}
	d.metrics.SessionsStarted.Inc()
	d.recordStart(s, &controlv1.LaunchResponse{})
	answer.Session = d.describe(s)
	err = errors.Join(s.group.Thaw(), t.close())
	d.checkSession(s.ID) // it may have been killed while it stood still
	return err
}

// moveIn moves a tree into its session, where it still stands still.
func (d *Daemon) moveIn(s *session, x *inspection, kernel bpf.Session) error {
	if err := x.sockets.destroy(); err != nil {
		return err
	}
	if err := s.group.Freeze(); err != nil {
		return err
	}
	for _, m := range x.tree.left() {
		if err := unix.Prlimit(m.pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
			return fmt.Errorf("keep process %d from dumping its memory: %w", m.pid, err)
		}
	}
	x.tree.moved = true
	for _, m := range x.tree.left() {
		if err := s.group.Add(m.pid); err != nil {
			return err
		}
		// The move has labelled it, or this finds that it has not.
		if err := d.kernel.Label(int(m.pidfd.Fd()), kernel); err != nil {
			return err
		}
	}
	return nil
}

// commandLine returns the words that a process was started with.
func commandLine(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	var words []string
	for word := range bytes.SplitSeq(bytes.TrimSuffix(data, []byte{0}), []byte{0}) {
		words = append(words, string(word))
	}
	return words
}
