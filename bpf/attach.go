// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

// attachAll attaches the programs, cgroup programs first: they are harmless
// while there are no sessions. What is linked already is left out; what before
// has attached on demand is too. The links are closed if one fails.
func attachAll(coll *ebpf.Collection, chosen programs, o Options, before *build, linked map[string]link.Link) (links map[string]link.Link, err error) {
	links = map[string]link.Link{}
	defer func() {
		if err != nil {
			for _, l := range links {
				l.Close()
			}
		}
	}()
	for _, name := range chosen.cgroup {
		if linked[name] != nil {
			continue
		}
		p := coll.Programs[name]
		links[name], err = link.AttachCgroup(link.CgroupOptions{Path: o.Cgroup, Attach: attachType(name), Program: p})
		if err != nil {
			delete(links, name)
			return nil, fmt.Errorf("attach %s to %s: %w", name, o.Cgroup, err)
		}
	}
	for _, name := range chosen.lsm {
		links[name], err = attachHook(coll.Programs[name])
		if err != nil {
			delete(links, name)
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
	}
	runtime.KeepAlive(coll)
	return links, demandAlike(coll, chosen, o, before, links, linked)
}

// attachHook attaches a program to the hook or tracepoint of the kernel that it is for.
func attachHook(p *ebpf.Program) (link.Link, error) {
	if p.Type() == ebpf.Tracing {
		return link.AttachTracing(link.TracingOptions{Program: p})
	}
	return link.AttachLSM(link.LSMOptions{Program: p})
}

func attachType(program string) ebpf.AttachType {
	switch program {
	case enforcerProgConnect4:
		return ebpf.AttachCGroupInet4Connect
	case enforcerProgConnect6:
		return ebpf.AttachCGroupInet6Connect
	case enforcerProgSendmsg4:
		return ebpf.AttachCGroupUDP4Sendmsg
	case enforcerProgSendmsg6:
		return ebpf.AttachCGroupUDP6Sendmsg
	case enforcerProgBind4:
		return ebpf.AttachCGroupInet4Bind
	case enforcerProgBind6:
		return ebpf.AttachCGroupInet6Bind
	case enforcerProgEgress:
		return ebpf.AttachCGroupInetEgress
	case enforcerProgIngress:
		return ebpf.AttachCGroupInetIngress
	}
	return ebpf.AttachNone
}

// SupportsCgroup tells whether this kernel loads the basic tier's programs.
func SupportsCgroup() error {
	return errors.Join(
		features.HaveProgramType(ebpf.CGroupSockAddr),
		features.HaveProgramType(ebpf.CGroupSKB),
		features.HaveMapType(ebpf.RingBuf),
	)
}
