// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// deep returns a directory so far below the tree that a file in it has 11 components.
func (f *fixture) deep() string { return filepath.Join(f.tree, "1/2/3/4/5/6/7/8") }

// onHardware is a target that holds where the clock is a clock; inGuest one for
// where it counts instructions.
func (f *fixture) onHardware(r reach) reach {
	if f.place.Instructions {
		return reach{}
	}
	return r
}

func (f *fixture) inGuest(r reach) reach {
	if !f.place.Instructions {
		return reach{}
	}
	return r
}

func openUnconfined(f *fixture) ([]sample, []figure, error) {
	path, err := f.file(filepath.Join(f.tree, "f"), "x")
	j := job{Do: "open", Path: path, N: f.repeat(20_000, 4_000)}
	samples := []sample{
		{name: "none", state: nothing, worker: plainName, job: j},
		{name: "empty", state: empty, worker: plainName, job: j},
		{name: "enforced", state: enforced, worker: plainName, job: j},
	}
	figures := []figure{
		{"open + close, depth 3", "none", ratio("enforced", "none"), f.onHardware(atMost(1.02)), "x"},
		{"open + close, depth 3", "an empty program", ratio("enforced", "empty"), f.inGuest(atMost(1.002)), "x"},
		{"an empty program", "none", ratio("empty", "none"), reach{}, "x"},
	}
	return samples, figures, err
}

// openWarm opens the same file again and again.
func openWarm(f *fixture) (samples []sample, figures []figure, err error) {
	for _, at := range []struct {
		name, dir  string
		aboveEmpty float64
	}{{"depth 3", f.tree, 1.05}, {"depth 11", f.deep(), 1.035}, {"root file system, depth 3", f.rootTree, 0}} {
		path, err := f.file(filepath.Join(at.dir, "f"), "x")
		if err != nil {
			return nil, nil, err
		}
		j := job{Do: "open", Path: path, N: f.repeat(20_000, 4_000)}
		none, blank, confined, landlock := "none "+at.name, "empty "+at.name, "confined "+at.name, "landlock "+at.name
		samples = append(samples,
			sample{name: none, state: nothing, worker: agentName, job: j},
			sample{name: landlock, state: nothing, worker: landlockName, job: j},
			sample{name: blank, state: empty, worker: agentName, job: j},
			sample{name: confined, state: enforced, worker: agentName, job: j},
		)
		figures = append(figures, f.warmFigures(at.name, none, blank, confined, landlock, at.aboveEmpty)...)
	}
	deeper := func(t times) float64 {
		return (t["confined depth 11"] - t["empty depth 11"]) / (t["confined depth 3"] - t["empty depth 3"])
	}
	return samples, append(figures, figure{"added at depth 11", "added at depth 3", deeper, atMost(1.1), "x"}), nil
}

func (f *fixture) warmFigures(name, none, blank, confined, landlock string, aboveEmpty float64) []figure {
	tenth, slack := atMost(0.1), f.onHardware(atMost(1.05))
	if aboveEmpty == 0 {
		tenth, slack = reach{}, reach{}
	}
	aboveBlank := func(t times) float64 { return (t[confined] - t[blank]) / (t[landlock] - t[none]) }
	list := []figure{
		{name, "none", ratio(confined, none), slack, "x"},
		{name, "an empty program", ratio(confined, blank), f.inGuest(atMost(aboveEmpty)), "x"},
		{name + ", Landlock", "none", ratio(landlock, none), reach{}, "x"},
		{name + ", none", "", half(none), reach{}, "ns"},
	}
	if f.place.Instructions {
		return append(list, figure{name + ", added to an empty program", "added by Landlock", aboveBlank, tenth, "x"})
	}
	return append(list, figure{name + ", added", "added by Landlock", added(confined, landlock, none), tenth, "x"})
}

// openCold opens a file in each of many directories, none of which is cached
// since the policies were last put in force.
func openCold(f *fixture) (samples []sample, figures []figure, err error) {
	n := f.repeat(2_000, 1_000)
	for _, at := range []struct{ name, dir string }{
		{"depth 4", f.tree}, {"depth 12", f.deep()},
	} {
		dir, err := f.each(at.dir, n)
		if err != nil {
			return nil, nil, err
		}
		j := job{Do: "each", Path: dir, N: n}
		none, confined, landlock := "none "+at.name, "confined "+at.name, "landlock "+at.name
		samples = append(samples,
			sample{name: none, state: nothing, worker: agentName, job: j},
			sample{name: landlock, state: nothing, worker: landlockName, job: j},
			sample{name: confined, state: enforced, worker: agentName, job: j, before: (*enforcement).apply},
		)
		figures = append(figures,
			figure{at.name, "none", ratio(confined, none), reach{}, "x"},
			figure{at.name + ", added", "added by Landlock", added(confined, landlock, none), atMost(1), "x"},
			figure{at.name + ", Landlock", "none", ratio(landlock, none), reach{}, "x"},
			figure{at.name + ", none", "", half(none), reach{}, "ns"},
		)
	}
	return samples, figures, nil
}

const manyRules = 100_000

// openRules compares two agents, of which one has many rules.
func openRules(f *fixture) ([]sample, []figure, error) {
	const dirs = 500
	dir, err := f.each(filepath.Join(f.tree, "rules"), dirs)
	if err != nil {
		return nil, nil, err
	}
	f.documents = append(f.documents, rulesDocument(fewName, dir, 10, dirs), rulesDocument(manyName, dir, manyRules, dirs))
	warm := job{Do: "open", Path: eachFile(dir, 7), N: f.repeat(20_000, 4_000)}
	cold := job{Do: "each", Path: dir, N: dirs}
	samples := []sample{
		{name: "warm few", state: enforced, worker: fewName, job: warm},
		{name: "warm many", state: enforced, worker: manyName, job: warm},
		{name: "cold few", state: enforced, worker: fewName, job: cold, before: (*enforcement).apply},
		{name: "cold many", state: enforced, worker: manyName, job: cold, before: (*enforcement).apply},
	}
	figures := []figure{
		{"open, 100,000 rules, warm", "10 rules", ratio("warm many", "warm few"), atMost(1.1), "x"},
		{"open, 100,000 rules, cold", "10 rules", ratio("cold many", "cold few"), atMost(1.5), "x"},
	}
	return samples, figures, nil
}

// rulesDocument is a policy of n rules; few allow the directory as a whole,
// many each file in it and files that aren't there.
func rulesDocument(agent, dir string, n, dirs int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: %s}\nspec:\n  subject: {spiffeID: %s}\n  files:\n", agent, agent)
	if n < dirs {
		fmt.Fprintf(&b, "    - {path: %s, allow: [read]}\n", dir)
		n--
	}
	for i := range n {
		fmt.Fprintf(&b, "    - {path: %s/d%d/f%d, allow: [read]}\n", dir, i%dirs, i)
	}
	return b.String()
}

func sessions(f *fixture) ([]sample, []figure, error) {
	const n = 10_000
	path, err := f.file(filepath.Join(f.tree, "f"), "x")
	j := job{Do: "open", Path: path, N: f.repeat(20_000, 4_000)}
	samples := []sample{
		{name: "one", state: enforced, worker: agentName, job: j},
		{name: "many", state: enforced, worker: agentName, job: j,
			before: func(e *enforcement) error { return e.crowd(n) },
			after:  func(e *enforcement) error { return e.disperse(n) }},
	}
	label := func(times) float64 { return float64(f.kernel.labelBytes) }
	figures := []figure{
		{"open, 10,000 sessions", "1 session", ratio("many", "one"), atMost(1.1), "x"},
		{"label of a process", "", label, atMost(2048), "bytes"},
	}
	return samples, figures, err
}
