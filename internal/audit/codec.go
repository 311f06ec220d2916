// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// encoder writes events as lines. It is for one goroutine.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

func newEncoder() *encoder {
	e := &encoder{}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	return e
}

// add appends one line, or nothing and an error: only a time that RFC 3339
// cannot tell (a year above 9999) is refused.
func (e *encoder) add(ev *Event) error {
	before := e.buf.Len()
	if ev.mapStrings(nil) {
		copied := ev.clone()
		copied.mapStrings(escapeBytes)
		ev = &copied
	}
	if err := e.json.Encode(ev); err != nil {
		e.buf.Truncate(before)
		return fmt.Errorf("encode event %s: %w", ev.ID, err)
	}
	return nil
}

// Encode returns the event as a line of the log, newline included.
func Encode(ev *Event) ([]byte, error) {
	e := newEncoder()
	if err := e.add(ev); err != nil {
		return nil, err
	}
	return e.buf.Bytes(), nil
}

// Decode reads one line of the log, with or without its newline. A schema
// other than Schema is an error: its fields may mean something else.
func Decode(line []byte) (Event, error) {
	var ev Event
	if err := json.Unmarshal(line, &ev); err != nil {
		return Event{}, fmt.Errorf("not an event: %w", err)
	}
	switch {
	case ev.Schema == 0:
		return Event{}, fmt.Errorf("not an event: it has no schema")
	case ev.Schema != Schema:
		return Event{}, fmt.Errorf("schema %d: this program reads schema %d, read it with the release that wrote it", ev.Schema, Schema)
	}
	ev.mapStrings(unescapeBytes)
	return ev, nil
}

// mapStrings replaces each string of the event by f of it. With a nil f it
// changes nothing and says whether one of them needs escapeBytes.
func (ev *Event) mapStrings(f func(string) string) (needed bool) {
	m := &stringMapper{f: f}
	m.all(&ev.ID, (*string)(&ev.Kind), &ev.Agent, &ev.Session, &ev.Task, &ev.Grant, &ev.Verdict, &ev.Reason,
		&ev.Policy, &ev.Rule, &ev.Operation, &ev.Executable, &ev.Message)
	for i := range ev.Access {
		m.one(&ev.Access[i])
	}
	for _, o := range []*Object{ev.Object, ev.Target} {
		if o != nil {
			m.all(&o.Type, &o.Path, &o.Address, &o.Protocol, &o.Family)
		}
	}
	for i := range ev.Ancestors {
		m.one(&ev.Ancestors[i].Name)
	}
	if ev.Fields != nil {
		ev.Fields = m.fields(ev.Fields)
	}
	return m.needed
}

type stringMapper struct {
	f      func(string) string
	needed bool
}

func (m *stringMapper) one(s *string) {
	if m.f != nil {
		*s = m.f(*s)
	} else if !m.needed {
		m.needed = needsBytes(*s)
	}
}

func (m *stringMapper) all(s ...*string) {
	for _, p := range s {
		m.one(p)
	}
}

func (m *stringMapper) fields(old map[string]string) map[string]string {
	if m.f == nil {
		for k, v := range old {
			m.all(&k, &v)
		}
		return old
	}
	mapped := make(map[string]string, len(old))
	for k, v := range old {
		mapped[m.f(k)] = m.f(v)
	}
	return mapped
}

// clone copies what mapStrings writes to.
func (ev *Event) clone() Event {
	c := *ev
	c.Access = slices.Clone(ev.Access)
	c.Ancestors = slices.Clone(ev.Ancestors)
	for _, o := range []**Object{&c.Object, &c.Target} {
		if *o != nil {
			copied := **o
			*o = &copied
		}
	}
	return c
}
