// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"io/fs"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/cgroup"
	"bailiff.dev/bailiff/internal/sockdiag"
	"bailiff.dev/bailiff/policy"
)

// cut ends what a session has open under grants that are over. The kernel lets
// nothing more pass there by itself; this is so that nobody waits for it.
func (d *Daemon) cut(c cutting) (done cutDone) {
	s, ok := d.sessions.find(c.session)
	if !ok || s.group == nil {
		return done
	}
	ruleset, _, _ := d.policies.forAgent(s.Agent)
	if ruleset != nil && ruleset.Audit {
		return done // nothing ends where nothing is denied
	}
	pids, err := s.group.PIDs()
	if err != nil {
		done.err = err
		return done
	}
	if done.killed, done.err = killMapped(s.group, pids, c, ruleset); done.killed {
		return done
	}
	n, err := destroySockets(s.group, pids, c, ruleset)
	done.sockets, done.err = n, errors.Join(done.err, err)
	return done
}

// killMapped kills a session that has mapped what only a grant that kills allowed.
func killMapped(group *cgroup.Group, pids []int, c cutting, r *policy.Ruleset) (bool, error) {
	c.over = slices.DeleteFunc(slices.Clone(c.over), func(x *grant) bool { return !x.Kill || len(x.Files) == 0 })
	if len(c.over) == 0 {
		return false, nil
	}
	var errs []error
	for _, pid := range pids {
		list, err := mappingsOf(pid)
		if err != nil {
			errs = append(errs, err) // it may be one that has mapped something: the kernel kills it
			continue
		}
		if slices.ContainsFunc(list, func(m mapping) bool { return c.overMapping(m, r) }) {
			if err := group.Kill(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, errors.Join(append(errs, err)...)
			}
			return true, nil
		}
	}
	return false, errors.Join(errs...)
}

// overMapping tells whether a mapping was allowed by a grant that is over, and
// nothing else allows it.
func (c *cutting) overMapping(m mapping, r *policy.Ruleset) bool {
	missing := m.access
	for _, x := range c.live {
		missing &^= x.opens(m.path)
	}
	if r != nil {
		missing &^= r.Rights(components(m.path))
	}
	return slices.ContainsFunc(c.over, func(x *grant) bool { return x.opens(m.path)&missing != 0 })
}

// destroySockets ends the connections of a session that only grants that are over
// allowed, in every network namespace that it has processes in.
func destroySockets(group *cgroup.Group, pids []int, c cutting, r *policy.Ruleset) (n int, err error) {
	if !slices.ContainsFunc(c.over, func(x *grant) bool { return len(x.Network) > 0 }) {
		return 0, nil
	}
	namespaces, err := sockdiag.Namespaces(pids)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, namespace := range namespaces {
		errs = append(errs, sockdiag.In(namespace, func() error {
			some, err := destroyHere(group, c, r)
			n += some
			return err
		}), namespace.Close())
	}
	return n, errors.Join(errs...)
}

// destroyHere does so in the network namespace of its thread.
func destroyHere(group *cgroup.Group, c cutting, r *policy.Ruleset) (n int, err error) {
	var sockets []sockdiag.Socket
	err = group.Each(func(_ string, id uint64) error {
		some, err := sockdiag.List(id)
		sockets = append(sockets, some...)
		return err
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for i := range sockets {
		if !c.overSocket(&sockets[i], sockets, r) {
			continue
		}
		if err := sockets[i].Destroy(); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// overSocket tells whether a socket is connected by a grant that is over, and
// nothing else allows that. all are the sockets of the session.
func (c *cutting) overSocket(s *sockdiag.Socket, all []sockdiag.Socket, r *policy.Ruleset) bool {
	connects := func(x *grant) bool { return x.connects(s.Peer, s.Protocol) }
	if s.Peer.Port() == 0 || !slices.ContainsFunc(c.over, connects) || slices.ContainsFunc(c.live, connects) {
		return false
	}
	if r == nil {
		return true
	}
	transport := policy.Transport(s.Protocol)
	return !r.JudgeAddress(policy.Outbound, s.Peer, transport).Allow &&
		!(s.Protocol == unix.IPPROTO_TCP && r.JudgeAddress(policy.Inbound, s.Local, transport).Allow) &&
		!(r.Self != 0 && s.Peer.Addr().IsLoopback() && isLocal(all, s.Peer, s.Protocol))
}

// isLocal tells whether one of the sockets has an address.
func isLocal(sockets []sockdiag.Socket, at netip.AddrPort, protocol uint8) bool {
	return slices.ContainsFunc(sockets, func(s sockdiag.Socket) bool {
		return s.Protocol == protocol && s.Local.Port() == at.Port() &&
			(s.Local.Addr() == at.Addr() || s.Local.Addr().IsUnspecified())
	})
}
