// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/cgroup"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/metrics"
)

// tier names what is in force.
func (d *Daemon) tier() string {
	if d.kernel.Full() {
		return "full"
	}
	return "basic"
}

// probes says what was tried on this host when the daemon started.
func (d *Daemon) probes() []*controlv1.Probe {
	lsm := &controlv1.Probe{Name: "LSM programs", Ok: d.lsm == nil, Result: "a program that denies was loaded, and denied"}
	switch {
	case errors.Is(d.lsm, errTierChosen):
		lsm.Result, lsm.Remedy = "not tried: the configuration says tier: basic", "remove tier: basic from bailiffd's configuration"
	case errors.Is(d.lsm, bpf.ErrInert):
		lsm.Result, lsm.Remedy = d.lsm.Error(), "add bpf to the kernel's lsm= boot parameter (see /sys/kernel/security/lsm), and restart"
	case errors.Is(d.lsm, bpf.ErrRefused):
		lsm.Result, lsm.Remedy = d.lsm.Error(), "use a kernel that allows them (6.1 or later with CONFIG_BPF_LSM), outside of sandboxes that forbid them"
	case d.lsm != nil:
		lsm.Result, lsm.Remedy = d.lsm.Error(), "use a kernel of 6.1 or later with CONFIG_BPF_LSM and BTF"
	}
	cgroups := &controlv1.Probe{Name: "cgroup programs", Ok: true, Result: "attached to " + d.parent.Path}
	adopted := &controlv1.Probe{Name: "pinned programs", Ok: true, Result: "loaded by this daemon"}
	switch {
	case d.kernel.Replaced() != "":
		adopted.Result = "in the place of another build's, without a gap"
	case d.kernel.Adopted():
		adopted.Result = "adopted from an earlier life of the daemon, without a gap"
	}
	processes := &controlv1.Probe{Name: "process limit", Ok: d.limited == nil, Result: "a session that forks without end leaves others some"}
	if d.limited != nil {
		processes.Result, processes.Remedy = d.limited.Error(), "find out what that is about, and restart bailiffd"
	}
	if errors.Is(d.limited, cgroup.ErrNoLimit) {
		processes.Remedy = "use a unified cgroup v2 hierarchy (systemd.unified_cgroup_hierarchy=1)"
	}
	return []*controlv1.Probe{lsm, cgroups, adopted, processes, d.liveProbe()}
}

// Status implements AdminService.
func (d *Daemon) Status(context.Context, *connect.Request[controlv1.StatusRequest]) (*connect.Response[controlv1.StatusResponse], error) {
	uses, err := d.kernel.Maps()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err)
	}
	d.policies.mu.RLock()
	defer d.policies.mu.RUnlock()
	answer := &controlv1.StatusResponse{
		Version: d.o.Version, Tier: d.tier(), Probes: d.probes(), Generation: d.policies.generation,
		Sessions: uint32(len(d.sessions.list(false))), Policies: uint32(len(d.policies.stored.Documents)),
		StateDirectory: d.o.Config.StateDir, Cgroup: d.parent.Path, Started: timestamppb.New(d.started),
	}
	for _, m := range uses {
		answer.Maps = append(answer.Maps, &controlv1.MapUse{Name: m.Name, Used: m.Used, Capacity: m.Capacity})
	}
	for _, loss := range d.audit.Losses() {
		answer.Dropped += loss.Count
	}
	return connect.NewResponse(answer), nil
}

// otherAgents is the name under which those are counted together that had their
// last session so long ago that they are not known apart. It is no SPIFFE ID.
const otherAgents = "others"

// snapshot is what the metrics show of the kernel side.
func (d *Daemon) snapshot() (metrics.Snapshot, error) {
	s := metrics.Snapshot{Sessions: map[string]int{}}
	counts, _, err := d.kernel.Counts()
	if err != nil {
		return s, err
	}
	for _, c := range counts {
		if ownAgent(c.Agent) {
			continue
		}
		if c.Agent == "" {
			c.Agent = otherAgents
		}
		s.Verdicts = append(s.Verdicts, metrics.Verdicts{Agent: c.Agent, Kind: c.Kind, Verdict: c.Verdict, Count: c.N})
	}
	latency, err := d.kernel.Latency()
	if err != nil {
		return s, err
	}
	s.Decisions = metrics.Decisions(latency)
	for _, running := range d.sessions.list(false) {
		s.Sessions[running.Agent]++
	}
	uses, err := d.kernel.Maps()
	if err != nil {
		return s, err
	}
	for _, m := range uses {
		s.Maps = append(s.Maps, metrics.Map{Name: m.Name, Entries: m.Used, Capacity: m.Capacity})
	}
	return s, nil
}

// droppedOf returns how many events of an agent found the ring full.
func (d *Daemon) droppedOf(agent string) uint64 {
	_, dropped, err := d.kernel.Counts()
	if err != nil {
		d.log.Error("the counts cannot be read", "error", err)
		return 0
	}
	return dropped[agent]
}

// ready is what /readyz says.
func (d *Daemon) ready() error {
	if !d.serving.Load() {
		return fmt.Errorf("bailiffd is starting (%s)", runtime.GOARCH)
	}
	return d.live.err()
}
