// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
)

// sample is one way of doing a job, timed in each pass of a round. Its time is
// per job done, in nanoseconds.
type sample struct {
	name   string
	state  state
	worker string
	job    job
	before func(*enforcement) error // not timed
	after  func(*enforcement) error
}

// times are those of a round's two passes together, by the samples' names.
type times map[string]float64

// figure is a number computed within each round.
type figure struct {
	what, beside string
	of           func(times) float64
	reach        reach
	unit         string // after the number
}

// reach is the target of a figure; the zero one is none.
type reach struct {
	value   float64
	atLeast bool // or else at most
}

func atMost(v float64) reach  { return reach{value: v} }
func atLeast(v float64) reach { return reach{v, true} }

func (r reach) String() string {
	switch {
	case r.value == 0:
		return ""
	case r.atLeast:
		return fmt.Sprintf(">= %.4g", r.value)
	}
	return fmt.Sprintf("<= %.4g", r.value)
}

func (r reach) met(v float64) bool {
	if r.atLeast {
		return v >= r.value
	}
	return v <= r.value
}

// row is one of the table's. Its samples and figures depend on where it runs.
type row struct {
	name, what string
	full       bool // needs LSM programs
	make       func(*fixture) ([]sample, []figure, error)
}

func rows() []row {
	return []row{
		{"B1", "open, unconfined process", true, openUnconfined},
		{"B2", "open, confined, warm", true, openWarm},
		{"B3", "open, confined, after a policy change", true, openCold},
		{"B4", "10 to 100,000 rules", true, openRules},
		{"B5", "connect + request + close", false, requests},
		{"B6", "bulk TCP", false, bulk},
		{"B7", "a developer's loop", true, developer},
		{"B8", "fork + exec", true, spawn},
		{"B12", "10,000 sessions", true, sessions},
	}
}

func rowNames() (names []string) {
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return names
}

func checkRows(names []string) error {
	for _, name := range names {
		if !slices.Contains(rowNames(), name) {
			return fmt.Errorf("no row %q: choose among %s", name, strings.Join(rowNames(), ", "))
		}
	}
	return nil
}

// ratio compares the times of two samples.
func ratio(of, to string) func(times) float64 {
	return func(t times) float64 { return t[of] / t[to] }
}

// added compares what two samples add to a third.
func added(of, to, base string) func(times) float64 {
	return func(t times) float64 { return (t[of] - t[base]) / (t[to] - t[base]) }
}

// half is the time of one pass of a sample: a round has two.
func half(name string) func(times) float64 {
	return func(t times) float64 { return t[name] / 2 }
}
