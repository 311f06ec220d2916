// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/cgroup"
	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

// Limits on what a launcher says of a session: it is all repeated in the log.
const (
	maxTask    = 256
	maxContext = 32
	maxValue   = 1024
	maxCommand = 4096 // bytes of it that are kept; likewise of the descriptors handed on
)

// Launch confines its caller.
func (d *Daemon) Launch(ctx context.Context, req *connect.Request[controlv1.LaunchRequest]) (*connect.Response[controlv1.LaunchResponse], error) {
	peer, ok := control.PeerFrom(ctx)
	if !ok {
		return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("the caller is unknown"))
	}
	agent, err := launchedAgent(req.Msg.Agent)
	if err != nil {
		return nil, err
	}
	if err := d.mayLaunch(peer, agent); err != nil {
		return nil, err
	}
	if err := checkLaunch(req.Msg); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := d.live.err(); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%w: see `bailiff doctor` for what would help", err))
	}
	answer, err := d.launch(peer, agent, req.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(answer), nil
}

// mayLaunch: root, the admin group, and groups that the configuration lets
// launch this agent.
func (d *Daemon) mayLaunch(peer *control.Peer, agent string) error {
	if d.isAdmin(peer) {
		return nil
	}
	for _, rule := range d.launchers {
		if peer.InGroup(uint32(rule.gid)) && slices.ContainsFunc(rule.agents, func(s string) bool { return policy.Match(s, agent) }) {
			return nil
		}
	}
	return connect.NewError(connect.CodePermissionDenied, fmt.Errorf(
		"user %d may not launch %s: add a group of theirs under `launch` in bailiffd's configuration, or use sudo", peer.UID, agent))
}

func checkLaunch(m *controlv1.LaunchRequest) error {
	if len(m.Task) > maxTask {
		return fmt.Errorf("the task's name has %d bytes: %d are possible", len(m.Task), maxTask)
	}
	if len(m.Context) > maxContext {
		return fmt.Errorf("there are %d context values: %d are possible", len(m.Context), maxContext)
	}
	for k, v := range m.Context {
		if k == "" || len(k) > maxTask || len(v) > maxValue {
			return fmt.Errorf("the context value %q is too long or has no name: names have 1 to %d bytes, values up to %d", k, maxTask, maxValue)
		}
	}
	return nil
}

// launch makes the session; whatever fails, nothing of it stays.
func (d *Daemon) launch(peer *control.Peer, agent string, m *controlv1.LaunchRequest) (*controlv1.LaunchResponse, error) {
	d.policies.apply.RLock() // no apply between looking the rules up and being judged by them
	defer d.policies.apply.RUnlock()
	ruleset, docs, ok := d.policies.forAgent(agent)
	if !ok {
		return nil, noPolicyAbout(agent)
	}
	answer := &controlv1.LaunchResponse{
		Tier: d.tier(), DropEnvironment: ruleset.Env.Drop, SetEnvironment: ruleset.Env.Set,
		Capabilities: uint64(ruleset.Capabilities),
	}
	if !d.kernel.Full() {
		if err := d.degrade(answer, ruleset, docs); err != nil {
			return nil, err
		}
	}
	pidfd, err := peer.PIDFD()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("hold the process: %w", err))
	}
	defer pidfd.Close()
	uid, err := effectiveUser(peer.PID)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	s := &session{sessionRecord: sessionRecord{
		Agent: agent, Task: m.Task, Context: m.Context, Command: shorten(m.Command), Kept: shorten(m.Kept),
		PID: peer.PID, UID: uid, Started: d.now(), Tier: d.tier(),
	}}
	s.ID, s.Number = newID()
	err = d.confine(s, agent, func(kernel bpf.Session) error {
		if err := s.group.Add(s.PID); err != nil {
			return err
		}
		// The process is the one that asked: it waits for the answer, and the pidfd
		// that named it is still alive.
		return d.kernel.Label(int(pidfd.Fd()), kernel)
	})
	if err != nil {
		d.log.Error("a session could not be started", "agent", agent, "pid", peer.PID, "error", err)
		return nil, launchError(err)
	}
	d.metrics.SessionsStarted.Inc()
	d.recordStart(s, answer)
	answer.Session = d.describe(s)
	return answer, nil
}

// confine makes the session and has its processes enter: first the tables that
// deny, then the processes.
func (d *Daemon) confine(s *session, agent string, enter func(bpf.Session) error) (err error) {
	number, done, err := d.holdNumber(agent)
	if err != nil {
		return err
	}
	defer done()
	if s.group, err = d.makeGroup(s.ID); err != nil {
		return err
	}
	kernel := bpf.Session{ID: s.Number, Agent: number, Cgroup: s.group.ID}
	d.sessions.add(s)
	defer func() {
		if err != nil {
			d.sessions.remove(s)
			if kill := s.group.Kill(); !errors.Is(kill, fs.ErrNotExist) {
				err = errors.Join(err, kill)
			}
			err = errors.Join(err, s.group.Remove(), d.kernel.RemoveSession(s.group.ID))
		}
	}()
	if err := d.kernel.AddSession(kernel); err != nil {
		return err
	}
	if err := d.saveSessions(); err != nil {
		return err
	}
	if err := enter(kernel); err != nil {
		return err
	}
	return d.watcher.Watch(s.group)
}

// makeGroup makes the cgroup of a session.
func (d *Daemon) makeGroup(name string) (*cgroup.Group, error) {
	group, err := d.parent.Make(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: somebody removed %s, and with it what is attached there: restart bailiffd, which makes and fills it anew", err, d.parent.Path)
	}
	return group, err
}

// degrade prepares a session on the basic tier, or says why it may not start.
func (d *Daemon) degrade(answer *controlv1.LaunchResponse, r *policy.Ruleset, docs []policy.Document) error {
	d.policies.mu.RLock()
	problems, unaccepted := d.policies.degraded(r)
	d.policies.mu.RUnlock()
	if unaccepted != "" {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(
			"this host cannot enforce all of its policy: %s: see `bailiff doctor` for what would raise that, "+
				"or accept it with `bailiff policy apply --accept-degraded FILE`", unaccepted))
	}
	for _, p := range problems {
		answer.Warnings = append(answer.Warnings, p.Pos.String()+": "+p.Message)
	}
	paths, err := landlockPaths(r, docs)
	if err != nil {
		return connect.NewError(connect.CodeInternal, err)
	}
	answer.Landlock = &controlv1.Landlock{Paths: paths}
	return nil
}

// recordStart writes the record of a session's start. It is in the log before the
// session's command runs.
func (d *Daemon) recordStart(s *session, answer *controlv1.LaunchResponse) {
	fields := map[string]string{"command": strings.Join(s.Command, " "), "tier": s.Tier}
	for k, v := range s.Context {
		fields["context."+k] = v
	}
	if a := s.Adopted; a != nil {
		fields["adopted"] = "true"
		fields["processes"], fields["killed"], fields["closed"] = fmt.Sprint(a.Processes), fmt.Sprint(a.Killed), fmt.Sprint(a.Closed)
	}
	if len(s.Kept) > 0 {
		fields["descriptors"] = strings.Join(s.Kept, ", ")
	}
	if n := len(answer.Warnings); n > 0 {
		fields["not_enforced"] = fmt.Sprintf("%d rules; see bailiff policy list", n)
	}
	if kept := policy.Capabilities(answer.Capabilities); kept != 0 {
		fields["capabilities"] = kept.String()
	}
	uid := int(s.UID)
	d.log.Info(sessionStarted, "session", s.ID, "agent", s.Agent, "pid", s.PID, "uid", s.UID)
	d.record(audit.Event{
		Kind: audit.Session, Agent: s.Agent, Session: s.ID, Task: s.Task, Message: sessionStarted,
		PID: s.PID, UID: &uid, Fields: fields,
	}, func() {
		d.sessions.recorded(s)
		d.unsaved.Store(true)
	})
}

// shorten keeps the first maxCommand bytes of a command, in whole words.
func shorten(command []string) []string {
	left := maxCommand
	for i, word := range command {
		if left -= len(word); left < 0 {
			return append(slices.Clone(command[:i]), "...")
		}
	}
	return command
}

// effectiveUser returns the user that a process acts as. Under sudo that is no
// longer the one that connected.
func effectiveUser(pid int) (uint32, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("look at the process: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok && len(strings.Fields(rest)) > 1 {
			uid, err := strconv.ParseUint(strings.Fields(rest)[1], 10, 32)
			return uint32(uid), err
		}
	}
	return 0, fmt.Errorf("look at the process: /proc/%d/status names no user", pid)
}
