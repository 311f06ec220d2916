// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/canary"
)

// The canary is a session of the daemon's own. To the LSM programs it is one
// agent, by its label, and to the cgroup programs another, by its cgroup: so what
// one layer must deny the other lets through, and each is seen at work alone.
const (
	ownDomain    = "spiffe://bailiff.invalid/" // of agents that nobody else can name
	canaryTask   = ownDomain + "canary"
	canaryCgroup = ownDomain + "canary-cgroup"
	canaryName   = "canary" // of its cgroup
	canaryNumber = bpf.OwnSessions
)

// Of these ports nothing is sent but to the first, where discard is if anything.
const (
	portOpen   = 9  // to both
	portCgroup = 10 // to the cgroup programs alone
	portLSM    = 11 // to the LSM programs alone
)

const canaryFile = "/dev/null" // may be read

// canaryDocuments are in every set, beside the built-in guardrail.
func canaryDocuments() string {
	const document = `---
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: builtin.%s}
spec:
  subject: {spiffeID: "%s"}
  files: [{path: ` + canaryFile + `, allow: [read]}]
  network: [{allow: connect, ip: 127.0.0.1, ports: [%d, %d], protocol: udp}]
`
	return fmt.Sprintf(document, "canary", canaryTask, portOpen, portLSM) +
		fmt.Sprintf(document, "canary-cgroup", canaryCgroup, portOpen, portCgroup)
}

// trial is an act that a layer, and no other, denies, and one that none does.
type trial struct {
	layer           string
	denied, allowed canary.Act
}

func (d *Daemon) trials() []trial {
	files := trial{"lsm_files",
		canary.Act{Kind: canary.Open, Path: filepath.Join(d.o.Config.StateDir, "lock")}, canary.Act{Kind: canary.Open, Path: canaryFile}}
	open := canary.Act{Kind: canary.Connect, Port: portOpen}
	cgroups := []trial{
		{"cgroup_connect", canary.Act{Kind: canary.Connect, Port: portLSM}, open},
		{"cgroup_egress", canary.Act{Kind: canary.SendHeld, Port: portOpen}, canary.Act{Kind: canary.Send, Port: portOpen}},
	}
	if !d.kernel.Full() {
		files.layer = "landlock"
		return append([]trial{files}, cgroups...)
	}
	return append([]trial{files, {"lsm_network", canary.Act{Kind: canary.Connect, Port: portCgroup}, open}}, cgroups...)
}

// judge returns what is wrong with how a trial ended.
func (t *trial) judge(denied, allowed error) error {
	switch {
	case denied == nil:
		return fmt.Errorf("it was possible to %s, which must be denied", t.denied)
	case !errors.Is(denied, unix.EACCES) && !errors.Is(denied, unix.EPERM):
		return fmt.Errorf("to %s failed without being denied: %w", t.denied, denied)
	case allowed != nil:
		return fmt.Errorf("to %s failed, which must be possible: %w", t.allowed, allowed)
	}
	return nil
}

// canaryRun is the canary's process and its place. It is for one goroutine.
type canaryRun struct {
	*Daemon
	child   *canary.Child
	session bpf.Session // as its cgroup has it
	fresh   bool        // it has not been told anything yet
}

// Limits of one round, which together with the usual interval stay within ten
// seconds: for the process that is there, and with the one that takes its place.
// The first of a daemon's life has time: nothing is launched before.
const (
	canaryLimit      = 3 * time.Second
	canaryRoundLimit = 6500 * time.Millisecond
	canaryFirstLimit = 40 * time.Second
)

// startCanary begins to try what must be denied, and returns when it is known
// whether it is. The returned function ends it.
func (d *Daemon) startCanary(ctx context.Context) (stop func()) {
	every, _ := d.o.Config.canaryEvery() // checked with the rest
	if every == 0 {
		d.log.Warn("canary: off: nothing shows whether what must be denied is denied")
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	first, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		// The child is killed when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c := &canaryRun{Daemon: d}
		defer c.end()
		c.round(canaryFirstLimit/2, canaryFirstLimit)
		close(first)
		for tick := time.NewTicker(every); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			c.round(canaryLimit, canaryRoundLimit)
		}
	}()
	<-first
	d.log.Info("the canary tries what must be denied", "every", every)
	return func() { cancel(); <-ended }
}

// round tries everything once, and notes what was found of each layer. A canary
// that has not answered within a limit is replaced, within the whole.
func (c *canaryRun) round(limit, whole time.Duration) {
	trials, began := c.trials(), time.Now()
	ends, err := c.try(trials, began.Add(limit))
	if err != nil {
		c.log.Warn("the canary is started again", "reason", err)
		c.end()
		ends, err = c.try(trials, began.Add(whole))
	}
	if err != nil {
		c.end()
	}
	for i := range trials {
		problem := err
		if err == nil {
			problem = trials[i].judge(ends[2*i], ends[2*i+1])
		} else {
			problem = fmt.Errorf("the canary cannot be run: %w", err)
		}
		c.noteLayer(trials[i].layer, problem)
	}
}

// try returns how the denied and the allowed act of each trial ended, in turns.
func (c *canaryRun) try(trials []trial, until time.Time) ([]error, error) {
	if c.child == nil {
		if err := c.start(); err != nil {
			return nil, err
		}
	}
	var o canary.Order
	if c.fresh && !c.kernel.Full() {
		o.Landlock = canaryFile
	}
	c.fresh = false
	for _, t := range trials {
		if t.denied.Kind == canary.SendHeld {
			t.denied.Kind = canary.Hold
		}
		o.Acts = append(o.Acts, t.denied, t.allowed)
	}
	ends, err := c.child.Try(o, until)
	for i := range trials {
		if trials[i].denied.Kind != canary.SendHeld || err != nil {
			continue
		}
		if ends[2*i] != nil {
			ends[2*i] = fmt.Errorf("to %s: %v", o.Acts[2*i], ends[2*i]) // not the denial that is meant
			continue
		}
		ends[2*i], err = c.tryCut(trials[i].denied, until)
	}
	return ends, err
}

// tryCut tries an act while nothing is allowed to the canary's cgroup.
func (c *canaryRun) tryCut(a canary.Act, until time.Time) (end, err error) {
	cut := c.session
	cut.Agent = 0 // nobody, to whom everything is denied
	if err := c.kernel.SetSessionAgent(cut); err != nil {
		return nil, err
	}
	ends, err := c.child.Try(canary.Order{Acts: []canary.Act{a}}, until)
	if err = errors.Join(err, c.kernel.SetSessionAgent(c.session)); err != nil {
		return nil, err
	}
	return ends[0], nil
}

// start makes the canary's session. What of it there is after an error, end
// takes away.
func (c *canaryRun) start() (err error) {
	task, group, err := c.canaryAgents()
	if err != nil {
		return err
	}
	if err := c.clearCanary(); err != nil {
		return err
	}
	if c.child, err = canary.Start("/proc/self/exe"); err != nil {
		return err
	}
	c.fresh = true
	place, err := c.makeGroup(canaryName)
	if err != nil {
		return err
	}
	s := bpf.Session{ID: canaryNumber, Agent: task, Cgroup: place.ID}
	if err := c.kernel.AddSession(s); err != nil {
		return err
	}
	if err := place.Add(c.child.PID()); err != nil {
		return err
	}
	if err := c.kernel.Label(c.child.PIDFD(), s); err != nil {
		return err
	}
	s.Agent = group
	c.session = s
	return c.kernel.SetSessionAgent(s)
}

// canaryAgents returns the numbers of the canary's two agents.
func (d *Daemon) canaryAgents() (task, group uint32, err error) {
	d.policies.apply.RLock() // as for a launch
	defer d.policies.apply.RUnlock()
	d.numbers.mu.Lock() // what they get they keep, see releaseNumbers
	defer d.numbers.mu.Unlock()
	if task, err = d.agentNumber(canaryTask); err != nil {
		return 0, 0, err
	}
	group, err = d.agentNumber(canaryCgroup)
	return task, group, err
}

// end takes the canary away.
func (c *canaryRun) end() {
	if c.child != nil {
		if err := c.child.Close(); err != nil {
			c.log.Error("the canary does not end", "error", err)
		}
	}
	c.child = nil
	if err := c.clearCanary(); err != nil {
		c.log.Error("something of the canary stays", "error", err)
	}
}

// clearCanary removes what a canary left, this daemon's or one's that was killed.
func (d *Daemon) clearCanary() error {
	group, err := d.parent.Child(canaryName)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err == nil {
		if err = group.Kill(); err == nil {
			err = group.Remove()
		}
	}
	sessions, listing := d.kernel.Sessions()
	err = errors.Join(err, listing)
	for _, s := range sessions {
		if s.ID == canaryNumber {
			err = errors.Join(err, d.kernel.RemoveSession(s.Cgroup))
		}
	}
	return err
}

// ownAgent tells whether an agent, or a subject, is one of the daemon's own.
func ownAgent(agent string) bool { return strings.HasPrefix(agent, ownDomain) }
