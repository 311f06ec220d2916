// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/sockdiag"
	"bailiff.dev/bailiff/policy"
)

// socketTables are the sockets of the network namespaces of a tree, by inode.
type socketTables struct {
	namespaces []*os.File // closed with the inspection
	inet       map[uint32]inetSocket
	unix       map[uint32]sockdiag.UnixSocket
	ours       map[uint32]bool // that processes of the tree have
	doomed     []inetSocket    // to be destroyed if the tree is adopted
}

// inetSocket is a socket with the namespace that it can be destroyed in.
type inetSocket struct {
	sockdiag.Socket
	namespace *os.File
}

func listSockets(pids []int, open map[int][]descriptor) (tables socketTables, err error) {
	tables = socketTables{inet: map[uint32]inetSocket{}, unix: map[uint32]sockdiag.UnixSocket{}, ours: map[uint32]bool{}}
	for _, list := range open {
		for i := range list {
			if inode := list[i].inode(); inode != 0 {
				tables.ours[inode] = true
			}
		}
	}
	// A socket may have come from the host's own namespace.
	if tables.namespaces, err = sockdiag.Namespaces(append(pids, os.Getpid())); err != nil {
		return tables, err
	}
	for _, namespace := range tables.namespaces {
		err := sockdiag.In(namespace, func() error { return tables.list(namespace) })
		if err != nil {
			return tables, err
		}
	}
	return tables, nil
}

func (tables *socketTables) list(namespace *os.File) error {
	inet, err := sockdiag.All()
	if err != nil {
		return err
	}
	for _, s := range inet {
		if s.Inode != 0 {
			tables.inet[s.Inode] = inetSocket{s, namespace}
		}
	}
	unix, err := sockdiag.Unix()
	maps.Copy(tables.unix, unix)
	return err
}

func (tables *socketTables) close() (err error) {
	for _, namespace := range tables.namespaces {
		err = errors.Join(err, namespace.Close())
	}
	return err
}

// destroy destroys the sockets that the policy does not allow.
func (tables *socketTables) destroy() error {
	var errs []error
	for i := range tables.doomed {
		s := &tables.doomed[i]
		errs = append(errs, sockdiag.In(s.namespace, s.Destroy))
	}
	return errors.Join(errs...)
}

// socket looks at one open socket.
func (x *inspection) socket(pid int, f *descriptor) error {
	var buffer [64]byte
	n, err := unix.Getxattr(f.link, "system.sockprotoname", buffer[:])
	if err != nil {
		return fmt.Errorf("look at a socket of process %d: %w", pid, err)
	}
	protocol := strings.TrimRight(string(buffer[:n]), "\x00")
	name := fmt.Sprintf("%d: %s", f.number, protocol)
	switch protocol {
	case "TCP", "TCPv6", "UDP", "UDPv6":
		x.inet(pid, name, f.inode())
	case "UNIX", "UNIX-STREAM":
		verdict, why := x.unix(f.inode())
		x.note(pid, kindSocket, name+" "+x.sockets.unix[x.sockets.unix[f.inode()].Peer].Name, verdict, why)
	case "NETLINK":
		x.note(pid, kindSocket, name, verdictJudged, "what changes anything takes capabilities, and each use of one is")
	default:
		x.note(pid, kindSocket, name, verdictKill, "no session could make it, and nothing judges what it receives")
	}
	return nil
}

// inet looks at a TCP or UDP socket. The cgroup's hooks do not see those that were
// made before; those that go by the task's label do.
func (x *inspection) inet(pid int, name string, inode uint32) {
	const judged = "the label of whoever uses it decides at each use; the programs of the cgroup do not see it"
	s, ok := x.sockets.inet[inode]
	if !ok {
		x.note(pid, kindSocket, name, verdictJudged, judged)
		return
	}
	transport := policy.Transport(s.Protocol)
	allowed := true
	switch {
	case s.Listens:
		name += " listens on " + s.Local.String()
		allowed = x.allows(x.ruleset.JudgeAddress(policy.Inbound, s.Local, transport))
	case s.Peer.Port() != 0:
		name += " connected to " + s.Peer.String()
		allowed = x.allows(x.ruleset.JudgeAddress(policy.Outbound, s.Peer, transport)) ||
			s.Protocol == unix.IPPROTO_TCP && x.allows(x.ruleset.JudgeAddress(policy.Inbound, s.Local, transport))
	default:
		name += " bound to " + s.Local.String()
	}
	if allowed {
		x.note(pid, kindSocket, name, verdictJudged, judged)
		return
	}
	x.sockets.doomed = append(x.sockets.doomed, s)
	x.note(pid, kindSocket, name, verdictClosed, "the policy does not allow it")
}

func (x *inspection) allows(d policy.Decision) bool { return d.Allow || x.ruleset.Audit && !d.Guard }

// unix judges what a Unix socket is connected to.
func (x *inspection) unix(inode uint32) (verdict, why string) {
	s, ok := x.sockets.unix[inode]
	switch {
	case !ok:
		return verdictKill, "it belongs to another network namespace, where nothing tells what it is connected to"
	case !s.Connected:
		return verdictJudged, "whom it connects and sends to is"
	case s.Peer == 0:
		return verdictKill, "nothing tells what it is connected to"
	case x.sockets.ours[s.Peer]:
		return verdictFine, "the other end is in the tree"
	}
	name := x.sockets.unix[s.Peer].Name
	switch {
	case name == "":
		return verdictNotCovered, "whoever is at the other end has no name, and what goes through it is judged by nobody"
	case strings.HasPrefix(name, "@"):
		return x.path(name, policy.Connect)
	case !filepath.IsAbs(name):
		return verdictKill, "the other end is bound to a relative path, which cannot be judged"
	}
	if resolved, err := filepath.EvalSymlinks(name); err == nil {
		name = resolved
	}
	return x.path(filepath.Clean(name), policy.Connect)
}
