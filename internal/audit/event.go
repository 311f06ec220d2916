// SPDX-License-Identifier: Apache-2.0

package audit

import "time"

// Schema is the version of the lines of the log. It changes when a field
// changes its meaning or goes; new fields do not change it.
const Schema = 1

// Kind says what a line tells of.
type Kind string

// The kinds of line.
const (
	Action  Kind = "action"  // the kernel judged something a session did
	Session Kind = "session" // a session started or ended
	Policy  Kind = "policy"  // policies were applied or deleted
	Grant   Kind = "grant"   // a grant was issued or ended
	System  Kind = "system"  // the daemon started, stopped, lost events
)

// Event is one line of the log.
type Event struct {
	Schema int       `json:"schema"`
	ID     string    `json:"id"` // unique on this host; sorts by time within a boot
	Kind   Kind      `json:"kind"`
	Time   time.Time `json:"time"`              // wall clock
	BootNS uint64    `json:"boot_ns,omitempty"` // nanoseconds since boot, suspend included
	Ring   Ring      `json:"ring,omitzero"`     // where the kernel told it; absent where it was not the kernel

	Agent   string `json:"agent,omitempty"` // SPIFFE ID
	Session string `json:"session,omitempty"`
	Task    string `json:"task,omitempty"`
	Grant   string `json:"grant,omitempty"` // id of the grant: what allowed an action, or what the line tells of

	// Of an action.
	Verdict    string    `json:"verdict,omitempty"` // allow, deny, audit
	Reason     string    `json:"reason,omitempty"`  // rule, default, or what went wrong
	Policy     string    `json:"policy,omitempty"`
	Rule       string    `json:"rule,omitempty"`
	Generation uint64    `json:"generation,omitempty"` // of the policies in force
	Operation  string    `json:"operation,omitempty"`
	Access     []string  `json:"access,omitempty"` // what was asked for: read, write, ...
	Object     *Object   `json:"object,omitempty"`
	Target     *Object   `json:"target,omitempty"` // the new name of a rename or link
	Count      uint64    `json:"count,omitempty"`  // how often, where the kernel folded repeats; else absent
	Fold       string    `json:"fold,omitempty"`   // the same on lines of the same acts, while they are repeated: a line without an object has that of the line before
	PID        int       `json:"pid,omitempty"`
	TID        int       `json:"tid,omitempty"`
	UID        *int      `json:"uid,omitempty"`
	Executable string    `json:"executable,omitempty"`
	Ancestors  []Process `json:"ancestors,omitempty"` // parent first

	// Of everything else.
	Message string            `json:"message,omitempty"`
	Fields  map[string]string `json:"fields,omitempty"`
}

// Ring is a place in a ring of the kernel's where an event waits until it is in
// the log. No two events of a host have the same.
type Ring struct {
	ID  string `json:"id"`  // of the ring; another boot's has another
	End uint64 `json:"end"` // position where the event's record ends; grows from event to event
}

// Object is what was acted upon.
type Object struct {
	Type     string `json:"type"` // file, unix, inet, socket, process, capability
	Path     string `json:"path,omitempty"`
	Cut      bool   `json:"cut,omitempty"` // the path was longer than the kernel could tell; its beginning is missing
	Address  string `json:"address,omitempty"`
	Port     uint16 `json:"port,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Family   string `json:"family,omitempty"` // of a socket; the capability's name
	PID      int    `json:"pid,omitempty"`
}

// Process is one of an event's ancestors. Name is the kernel's comm: for
// reading only, nothing is ever decided by it.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
}
