// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"bailiff.dev/bailiff/policy"
)

// Event is one verdict, as the kernel told it.
type Event struct {
	Position   uint64 // in the ring, where its record ends: see Reader.Commit
	BootNS     uint64
	Session    uint64
	Generation uint64
	Agent      uint32
	Rule       policy.RuleNumber // of the agent's ruleset in that generation; 0: Reason says why
	Count      uint64            // acts that this one stands for: it, and those that were the same since the last event of them
	Fold       uint64            // not 0: the same in events of the same acts, for as long as they are repeated
	Grant      uint32            // number of the grant that allowed it; 0: none did
	Operation  string            // open, exec, connect, ...
	Kind       string            // file, exec, network, unix, guard
	Verdict    string            // allow, deny, audit
	Reason     string            // rule, default, or what went wrong
	Access     policy.Access     // what was asked for
	PID, TID   int               // 0: not told by a task of the session
	UID        int
	Executable string
	Ancestors  []Ancestor // parent first

	Path      []string // components from the root down
	Target    []string // of a rename or link
	Abstract  bool     // Path is {"\x00", NAME}: an abstract Unix socket
	Unix      bool     // Path is a Unix socket's
	Cut       bool     // the paths' beginnings are missing
	Device    uint32   // not 0: Path is within the filesystem with this number, see Home
	Address   netip.Addr
	Port      uint16
	Transport uint16 // IP protocol
	Family    uint16 // of a socket
	Type      uint16 // of the same; number of the capability that is missing
	Peer      int    // process acted upon
}

// Ancestor is a process above the one that acted.
type Ancestor struct {
	PID  int
	Comm string
}

const eventSize = int(unsafe.Sizeof(enforcerEvent{}))

// decode reads one record of the ring.
func decode(raw []byte) (*Event, error) {
	if len(raw) < eventSize {
		return nil, fmt.Errorf("decode event: %d bytes are too few", len(raw))
	}
	var e enforcerEvent
	// Both sides are one machine and one layout; decoding by reflection took longer than all the rest.
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), eventSize), raw)
	if e.Version != abiVersion {
		return nil, fmt.Errorf("decode event: version %d, not %d", e.Version, abiVersion)
	}
	rest := raw[eventSize:]
	if uint64(e.PathLen)+uint64(e.TargetLen) > uint64(len(rest)) || int(e.ExeLen) > len(e.Exe) || int(e.Ancestors) > len(e.Ancestor) {
		return nil, errors.New("decode event: a length is beyond the record")
	}
	path, target := rest[:e.PathLen], rest[e.PathLen:e.PathLen+e.TargetLen]
	ev := &Event{
		BootNS: e.BootNs, Session: e.Session, Generation: e.Generation, Agent: e.Agent,
		Rule: policy.RuleNumber(e.Rule), Grant: e.Grant,
		Count: 1 + uint64(e.Repeats), Fold: e.Fold,
		Operation: name(operationNames(), int(e.Operation)),
		Kind:      name(kindNames(), int(kindOf(enforcerOperation(e.Operation)))),
		Verdict:   name(verdictNames(), int(e.Verdict)),
		Reason:    name(reasonNames(), int(e.Reason)),
		Access:    policy.Access(e.Access),
		PID:       int(e.Pid), TID: int(e.Tid), UID: int(e.Uid),
		Executable: joinLeafFirst(toBytes(e.Exe[:e.ExeLen])),
		Cut:        e.Cut != 0, Device: e.Device,
		Port: e.Port, Transport: e.Protocol, Family: e.Family, Type: e.Type, Peer: int(e.Peer),
	}
	for _, a := range e.Ancestor[:e.Ancestors] {
		ev.Ancestors = append(ev.Ancestors, Ancestor{int(a.Pid), cString(toBytes(a.Comm[:]))})
	}
	switch enforcerObject(e.Object) {
	case enforcerObjectOBJECT_PATH:
		ev.Path, ev.Target = leafFirst(path), leafFirst(target)
	case enforcerObjectOBJECT_UNIX:
		ev.Path, ev.Unix = leafFirst(path), true
	case enforcerObjectOBJECT_ABSTRACT:
		ev.Path, ev.Unix, ev.Abstract = []string{"\x00", string(path)}, true, true
	case enforcerObjectOBJECT_INET:
		ev.Address = netip.AddrFrom16(e.Address).Unmap()
	}
	return ev, nil
}

func toBytes(chars []int8) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(chars))), len(chars))
}

func cString(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// leafFirst splits components that are ended by a NUL each, and turns them round.
func leafFirst(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	var parts []string
	for part := range bytes.SplitSeq(bytes.TrimSuffix(b, []byte{0}), []byte{0}) {
		parts = append(parts, string(part))
	}
	slices.Reverse(parts)
	return parts
}

func joinLeafFirst(b []byte) string {
	var path bytes.Buffer
	for _, part := range leafFirst(b) {
		path.WriteString("/" + part)
	}
	return path.String()
}
