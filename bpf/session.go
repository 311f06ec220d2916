// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"bailiff.dev/bailiff/policy"
)

// Session is what the kernel knows of a session.
type Session struct {
	ID     uint64
	Agent  uint32 // see AgentNumber
	Cgroup uint64 // id of its cgroup: the inode number of its directory
}

// AddSession makes the cgroup programs judge the processes of a cgroup.
func (e *Enforcer) AddSession(s Session) error {
	value := enforcerSession{Session: s.ID, Agent: s.Agent}
	if err := e.maps[enforcerMapSessions].Update(s.Cgroup, &value, ebpf.UpdateNoExist); err != nil {
		return fmt.Errorf("add the session to the kernel's table: %w", err)
	}
	return nil
}

// OwnSessions is where the numbers begin of sessions that are the daemon's own:
// they come and go with it, and hold no programs of another build in force.
const OwnSessions uint64 = 1 << 40

// SetSessionAgent gives a session in the kernel's table another agent; a task's
// label stays what it is.
func (e *Enforcer) SetSessionAgent(s Session) error {
	value := enforcerSession{Session: s.ID, Agent: s.Agent}
	if err := e.maps[enforcerMapSessions].Update(s.Cgroup, &value, ebpf.UpdateExist); err != nil {
		return fmt.Errorf("change the session in the kernel's table: %w", err)
	}
	return nil
}

// Label confines the process of a pidfd: its thread group leader, and whatever
// that starts from now on. It has no effect on the basic tier.
func (e *Enforcer) Label(pidfd int, s Session) error {
	if !e.full {
		return nil
	}
	label := enforcerLabel{Session: s.ID, Cgroup: s.Cgroup, Agent: s.Agent}
	err := e.maps[enforcerMapLabels].Update(uint32(pidfd), &label, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		// Coming into the cgroup labels a process too.
		session, _, err := e.Labelled(pidfd)
		if err == nil && session != s.ID {
			err = fmt.Errorf("label the process: it belongs to session %d", session)
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("label the process: %w", err)
	}
	return nil
}

// Labelled returns the session of the process of a pidfd, by its label. On the
// basic tier nothing has a label.
func (e *Enforcer) Labelled(pidfd int) (session uint64, ok bool, err error) {
	if !e.full {
		return 0, false, nil
	}
	var label enforcerLabel
	err = e.maps[enforcerMapLabels].Lookup(uint32(pidfd), &label)
	if ignoreMissing(err) != nil {
		return 0, false, fmt.Errorf("look up the label: %w", err)
	}
	return label.Session, err == nil, nil
}

// RemoveSession forgets a session whose cgroup is empty.
func (e *Enforcer) RemoveSession(cgroup uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var s enforcerSession
	if e.maps[enforcerMapSessions].Lookup(cgroup, &s) == nil {
		if err := ignoreMissing(e.maps[enforcerMapMappings].Delete(s.Session)); err != nil {
			return fmt.Errorf("remove the session's mappings from the kernel's table: %w", err)
		}
		if err := e.disown(s.Session); err != nil {
			return err
		}
	}
	if err := ignoreMissing(e.maps[enforcerMapSessions].Delete(cgroup)); err != nil {
		return fmt.Errorf("remove the session from the kernel's table: %w", err)
	}
	return e.release(cgroup)
}

// disown forgets the System V IPC objects that a session made. They stay, and no
// other session may use them.
func (e *Enforcer) disown(session uint64) error {
	m := e.maps[enforcerMapIpcObjects]
	var object, owner uint64
	var own []uint64
	it := m.Iterate()
	for it.Next(&object, &owner) {
		if owner == session {
			own = append(own, object)
		}
	}
	err := it.Err()
	for _, object := range own {
		err = errors.Join(err, ignoreMissing(m.Delete(object)))
	}
	if err != nil {
		return fmt.Errorf("forget the session's IPC objects: %w", err)
	}
	return nil
}

// Sessions returns all sessions in the kernel's table.
func (e *Enforcer) Sessions() ([]Session, error) {
	var list []Session
	var cgroup uint64
	var value enforcerSession
	it := e.maps[enforcerMapSessions].Iterate()
	for it.Next(&cgroup, &value) {
		list = append(list, Session{ID: value.Session, Agent: value.Agent, Cgroup: cgroup})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the kernel's table of sessions: %w", err)
	}
	return list, nil
}

// SetHomes tells where filesystems are mounted: components by the device number
// that mountinfo shows. It serves objects that are reached through a bind mount,
// or of which a hook sees no mount.
func (e *Enforcer) SetHomes(homes map[uint32][]string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.maps[enforcerMapHomes]
	for device, components := range homes {
		if len(components) > policy.MaxDepth {
			continue // such paths are denied anyhow
		}
		home := enforcerHome{Depth: uint32(len(components))}
		for i, c := range components {
			home.Hash[len(components)-1-i] = e.key.sum(c)
		}
		if err := m.Update(device, &home, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("write the table of mounts: %w", err)
		}
	}
	for device := range e.homes {
		if _, still := homes[device]; !still {
			if err := ignoreMissing(m.Delete(device)); err != nil {
				return fmt.Errorf("write the table of mounts: %w", err)
			}
		}
	}
	e.homes = homes
	return nil
}

// Home returns where a filesystem is mounted, as components.
func (e *Enforcer) Home(device uint32) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.homes[device]
}
