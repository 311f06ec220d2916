// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/policy"
)

// readEvents moves verdicts from the kernel's ring to the log until the reader
// is closed.
func (d *Daemon) readEvents() {
	d.reading.Store(true)
	defer d.reading.Store(false)
	for {
		ev, err := d.reader.Read(time.Time{})
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, bpf.ErrFlushed):
			d.flushed <- struct{}{}
		case err != nil:
			d.unreadable(err)
		default:
			d.tell(ev)
		}
	}
}

// unreadable counts an event that is lost since it says nothing to this build.
func (d *Daemon) unreadable(err error) {
	d.log.Error("an event could not be read", "error", err)
	d.audit.Lost(audit.Loss{Stage: audit.InQueue, Count: 1})
}

// readWaiting moves to the log what waits in the ring when the daemon starts.
func (d *Daemon) readWaiting() error {
	if err := d.reader.Flush(); err != nil {
		return err
	}
	for {
		ev, err := d.reader.Read(time.Time{})
		switch {
		case errors.Is(err, bpf.ErrFlushed):
			d.audit.Flush()
			return nil
		case errors.Is(err, os.ErrClosed):
			return err
		case err != nil:
			d.unreadable(err)
		default:
			d.tell(ev)
		}
	}
}

// drain waits, briefly, until what the kernel has told so far is in the log.
func (d *Daemon) drain() {
	d.draining.Lock()
	defer d.draining.Unlock()
	select {
	case <-d.flushed: // for one that waited no longer
	default:
	}
	if d.reading.Load() && d.reader.Flush() == nil {
		select {
		case <-d.flushed:
		case <-time.After(time.Second):
			d.log.Warn("the kernel tells more than can be written in a second")
		}
	}
	d.audit.Flush()
}

// drainSession is drain, after the kernel was asked to tell all of a session.
func (d *Daemon) drainSession(s *session) {
	if err := d.kernel.FlushFolds(s.Number); err != nil {
		d.log.Error("repeated acts stay untold", "session", s.ID, "error", err)
	}
	d.drain()
}

// tell writes one verdict to the log and to its session's summary.
func (d *Daemon) tell(ev *bpf.Event) {
	if ev.Session >= bpf.OwnSessions {
		// The canary knows what it was denied.
		if err := d.reader.Skip(ev); err != nil {
			d.log.Error("an event of the canary stays in the ring", "error", err)
		}
		return
	}
	agent := d.kernel.AgentName(ev.Agent)
	ruleset := d.policies.ruleset(agent, ev.Generation)
	out := audit.Event{
		Kind: audit.Action, Time: d.wallTime(ev.BootNS), BootNS: ev.BootNS, Agent: agent,
		Ring:    audit.Ring{ID: d.reader.Ring(), End: ev.Position},
		Verdict: ev.Verdict, Reason: ev.Reason, Generation: ev.Generation, Operation: ev.Operation,
		PID: ev.PID, TID: ev.TID, Executable: ev.Executable,
		Object: d.object(ev), Target: d.target(ev),
	}
	if ev.PID != 0 {
		out.UID = &ev.UID
	}
	for _, a := range ev.Ancestors {
		out.Ancestors = append(out.Ancestors, audit.Process{PID: a.PID, Name: a.Comm})
	}
	if ev.Access != 0 {
		out.Access = strings.Split(ev.Access.String(), ", ")
	}
	if rule := ruleOf(ruleset, ev.Rule); rule != nil {
		out.Policy, out.Rule = rule.Policy, rule.ID
	} else if ev.Grant != 0 {
		out.Grant = d.grants.idOf(ev.Grant, time.Duration(ev.BootNS))
	} else if ev.Rule != 0 {
		out.Rule = "rule " + strconv.Itoa(int(ev.Rule)) + " of generation " + strconv.FormatUint(ev.Generation, 10)
	}
	if ev.Count > 1 {
		out.Count = ev.Count
	}
	if ev.Fold != 0 {
		out.Fold = strconv.FormatUint(ev.Fold, 16)
	}
	d.folds.complete(ev, &out)
	s := d.sessions.numbered(ev.Session)
	if s != nil {
		out.Session, out.Task = s.ID, s.Task
		if ev.Verdict != "allow" {
			s.denials.add(denial{ev.Operation, describeObject(&out), out.Rule, advise(ruleset, ev)}, ev.Count)
		}
	}
	d.audit.Write(out)
}

func ruleOf(r *policy.Ruleset, n policy.RuleNumber) *policy.Rule {
	if r == nil || n == 0 || int(n) >= len(r.Rules) {
		return nil
	}
	return &r.Rules[n]
}

// wallTime turns a time since boot into one on the wall's clock, as that stands now.
func (d *Daemon) wallTime(bootNS uint64) time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return d.now()
	}
	return d.now().Add(-time.Duration(uint64(ts.Nano()) - bootNS))
}

func (d *Daemon) object(ev *bpf.Event) *audit.Object {
	switch {
	case ev.Abstract:
		return &audit.Object{Type: "unix", Path: "@" + ev.Path[1]}
	case ev.Address.IsValid():
		return &audit.Object{Type: "inet", Address: ev.Address.String(), Port: ev.Port, Protocol: protocolName(ev.Transport)}
	case ev.Operation == "capability":
		return &audit.Object{Type: "capability", Family: policy.Capabilities(1 << (ev.Type & 63)).String()}
	case ev.Operation == "socket":
		return &audit.Object{Type: "socket", Family: socketName(ev.Family, ev.Type, ev.Transport)}
	case ev.Peer != 0:
		return &audit.Object{Type: "process", PID: ev.Peer}
	case ev.Path == nil && ev.Kind != "file" && ev.Kind != "exec" && ev.Kind != "unix":
		return nil
	}
	kind := "file"
	if ev.Unix {
		kind = "unix"
	}
	return &audit.Object{Type: kind, Path: d.path(ev, ev.Path), Cut: ev.Cut}
}

func (d *Daemon) target(ev *bpf.Event) *audit.Object {
	if ev.Target == nil {
		return nil
	}
	return &audit.Object{Type: "file", Path: d.path(ev, ev.Target), Cut: ev.Cut}
}

// path joins components. What was not told whole, or does not lead to the host's
// root, gets a mark in place of a beginning that nobody knows.
func (d *Daemon) path(ev *bpf.Event, parts []string) string {
	if ev.Device != 0 {
		parts = append(append([]string(nil), d.kernel.Home(ev.Device)...), parts...)
	}
	joined := "/" + strings.Join(parts, "/")
	if ev.Cut || ev.Reason == "outside" || ev.Reason == "deep" {
		return "..." + joined
	}
	return joined
}

func protocolName(p uint16) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	}
	return strconv.Itoa(int(p))
}

// socketName says what a socket() call asked for.
func socketName(family, kind, protocol uint16) string {
	families := map[uint16]string{
		unix.AF_UNIX: "unix", unix.AF_INET: "inet", unix.AF_INET6: "inet6", unix.AF_NETLINK: "netlink",
		unix.AF_PACKET: "packet", unix.AF_ALG: "alg", unix.AF_VSOCK: "vsock", unix.AF_XDP: "xdp", unix.AF_BLUETOOTH: "bluetooth",
	}
	types := map[uint16]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw", unix.SOCK_SEQPACKET: "seqpacket"}
	f, ok := families[family]
	if !ok {
		f = strconv.Itoa(int(family))
	}
	t, ok := types[kind]
	if !ok {
		t = strconv.Itoa(int(kind))
	}
	return fmt.Sprintf("%s %s %d", f, t, protocol)
}

// describeObject is an event's object in one line, escaped.
func describeObject(ev *audit.Event) string {
	o := ev.Object
	switch {
	case o == nil:
		return ev.Operation
	case o.Address != "":
		return fmt.Sprintf("%s %s", joinHostPort(o.Address, o.Port), o.Protocol)
	case o.Family != "":
		return o.Type + " " + o.Family
	case o.PID != 0:
		return "process " + strconv.Itoa(o.PID)
	case ev.Target != nil:
		return audit.Escape(o.Path) + " -> " + audit.Escape(ev.Target.Path)
	}
	return audit.Escape(o.Path)
}

func joinHostPort(address string, port uint16) string {
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return address + ":" + strconv.Itoa(int(port))
}

// advise returns the policy line that would have allowed what was denied.
func advise(r *policy.Ruleset, ev *bpf.Event) policy.Advice {
	switch {
	case r == nil || ev.Device != 0 || ev.Cut:
		return policy.Advice{}
	case ev.Operation == "capability":
		return policy.AdviseCapability(ev.Type)
	case ev.Reason != "rule" && ev.Reason != "default":
		return policy.Advice{Reason: reasonText(ev.Reason)}
	case ev.Address.IsValid():
		direction := policy.Outbound
		if ev.Operation == "listen" || ev.Operation == "bind" {
			direction = policy.Inbound
		}
		return r.AdviseNet(direction, ev.Address, ev.Port, policy.Transport(ev.Transport))
	case ev.Path != nil && ev.Access != 0 && ev.Target == nil:
		return r.AdviseFile(ev.Path, ev.Access)
	}
	return policy.Advice{}
}

// reasonText says why no line of a policy would help.
func reasonText(reason string) string {
	switch reason {
	case "outside":
		return "it does not lead to this host's root directory"
	case "deep":
		return "its path has too many components"
	case "race":
		return "its path kept changing while it was looked at: try again"
	case "full":
		return "a table of the kernel programs is full: see `bailiff doctor`"
	case "fault":
		return "the kernel could not look at it"
	case "wider":
		return "under the new name the same file could be used for more than under the old one"
	case "terminal":
		return "the terminal is neither one that the session made nor the one that it was started in"
	case "device":
		return "sessions cannot make device nodes, nor open this one"
	case "socket":
		return "sessions cannot have this kind of socket or packet"
	case "no-label":
		return "the process was put into the session's cgroup from outside"
	case "no-session":
		return "it is in the sessions' cgroup, and of no session that is known"
	case "privilege":
		return "it would reach outside the session"
	}
	return ""
}
