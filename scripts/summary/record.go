// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action  string
	Package string  `json:",omitempty"`
	Test    string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"` // seconds
	Output  string  `json:",omitempty"`
}

// id names a test, or with an empty test a package.
type id struct{ pkg, test string }

func (e event) id() id { return id{e.Package, e.Test} }

func (e event) terminal() bool {
	return e.Action == "pass" || e.Action == "fail" || e.Action == "skip"
}

type recorder struct {
	events  *json.Encoder
	text    io.Writer
	running map[id]bool
	ended   map[string]bool // packages
	output  map[id]*strings.Builder
	err     error // the first one of writing events
}

func newRecorder(events, text io.Writer) *recorder {
	return &recorder{
		events:  json.NewEncoder(events),
		text:    text,
		running: map[id]bool{},
		ended:   map[string]bool{},
		output:  map[id]*strings.Builder{},
	}
}

// copy records every event of in; lines that are none are passed on as text.
func (r *recorder) copy(in io.Reader) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if err != nil {
			return
		}
	}
}

func (r *recorder) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprintln(r.text, strings.TrimRight(line, "\n"))
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(r.text, e.Output)
	}
	r.add(e)
}

func (r *recorder) add(e event) {
	if err := r.events.Encode(e); err != nil && r.err == nil {
		r.err = err
	}
	switch {
	case e.Action == "start" || e.Action == "run":
		r.running[e.id()] = true
	case e.Action == "output":
		if r.output[e.id()] == nil {
			r.output[e.id()] = &strings.Builder{}
		}
		r.output[e.id()].WriteString(e.Output)
	case e.terminal():
		r.end(e)
	}
}

func (r *recorder) end(e event) {
	delete(r.running, e.id())
	if output := r.output[e.id()]; output != nil && e.Action == "fail" {
		fmt.Fprint(r.text, output)
	}
	delete(r.output, e.id())
	if e.Test == "" {
		r.ended[e.Package] = true
		fmt.Fprintf(r.text, "%-4s %s %.1fs\n", e.Action, e.Package, e.Elapsed)
	}
}

// finish fails what has begun and not ended, tests before their packages, and
// what was expected and has not begun.
func (r *recorder) finish(expected []string) {
	var open []id
	for key := range r.running {
		open = append(open, key)
	}
	for _, name := range expected {
		if key := (id{pkg: name}); !r.ended[name] && !r.running[key] {
			open = append(open, key)
		}
	}
	slices.SortFunc(open, func(a, b id) int {
		return strings.Compare(b.pkg+" "+b.test, a.pkg+" "+a.test)
	})
	for _, key := range open {
		r.add(event{Action: "output", Package: key.pkg, Test: key.test, Output: "the run ended before this did\n"})
		r.add(event{Action: "fail", Package: key.pkg, Test: key.test})
	}
}

// skipAll records that nothing of the packages was run, as one skipped test each.
func (r *recorder) skipAll(packages []string, reason string) {
	const test = "(all)"
	fmt.Fprintln(r.text, "skipped:", reason)
	for _, name := range packages {
		r.add(event{Action: "output", Package: name, Test: test, Output: skipReason + reason + "\n"})
		r.add(event{Action: "skip", Package: name, Test: test})
		r.add(event{Action: "skip", Package: name})
	}
}
