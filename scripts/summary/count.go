// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// skipReason starts the reason in a skip's message; kerneltest.SkipReason is the same.
const skipReason = "SKIP-REASON: "

// result is one test that counts: one without subtests, or one that failed by
// itself; or a package that failed with no test to blame.
type result struct {
	environment string
	id
	action string // pass, fail or skip
	reason string // of a skip
}

// readResults reads what record wrote. With ci, skips that installing something
// would cure have failed.
func readResults(environment, path string, ci bool) ([]result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	defer file.Close()
	ended, output, err := readEvents(file)
	if err != nil {
		return nil, fmt.Errorf("read results: %s: %w", path, err)
	}
	hasChild, hasFailed := parents(ended)
	var results []result
	for _, e := range ended {
		key := e.id()
		leaf := e.Test != "" && !hasChild[key]
		if !leaf && (e.Action != "fail" || hasFailed[key]) {
			continue
		}
		r := result{environment: environment, id: key, action: e.Action}
		if e.Action == "skip" {
			r.reason = reasonOf(output[key])
			if ci && (strings.HasPrefix(r.reason, "tool:") || strings.HasPrefix(r.reason, "vm: cannot")) {
				r.action = "fail"
			}
		}
		results = append(results, r)
	}
	return results, nil
}

func readEvents(in io.Reader) (ended []event, output map[id]string, err error) {
	output = map[id]string{}
	decoder := json.NewDecoder(bufio.NewReader(in))
	for {
		var e event
		err := decoder.Decode(&e)
		if err == io.EOF {
			return ended, output, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if e.Action == "output" {
			output[e.id()] += e.Output
		}
		if e.terminal() {
			ended = append(ended, e)
		}
	}
}

// parents tells which tests and packages have tests below them, and which have
// one that failed.
func parents(ended []event) (hasChild, hasFailed map[id]bool) {
	hasChild, hasFailed = map[id]bool{}, map[id]bool{}
	for _, e := range ended {
		for test := e.Test; test != ""; {
			cut := max(strings.LastIndexByte(test, '/'), 0)
			test = test[:cut]
			parent := id{e.Package, test}
			hasChild[parent] = true
			hasFailed[parent] = hasFailed[parent] || e.Action == "fail"
		}
	}
	return hasChild, hasFailed
}

// reasonOf finds a skip's reason in the test's output: after skipReason, or else
// in the message before the "--- SKIP" line: "    x_test.go:1: why".
func reasonOf(output string) string {
	if _, after, ok := strings.Cut(output, skipReason); ok {
		reason, _, _ := strings.Cut(after, "\n")
		return reason
	}
	reason := "no reason given"
	for line := range strings.Lines(output) {
		position, message, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && strings.Contains(position, ".go:") {
			reason = message
		}
	}
	return reason
}

// printTable prints the counts, last of all those of everything, and returns how
// many failed.
func printTable(out io.Writer, results []result) int {
	actions := []string{"pass", "fail", "skip"}
	counts := map[string]map[string]int{}
	var environments, failures []string
	reasons := map[string]int{}
	total := map[string]int{}
	for _, r := range results {
		if counts[r.environment] == nil {
			counts[r.environment] = map[string]int{}
			environments = append(environments, r.environment)
		}
		counts[r.environment][r.action]++
		total[r.action]++
		switch r.action {
		case "skip":
			reasons[r.environment+": "+r.reason]++
		case "fail":
			failures = append(failures, strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", r.environment, r.pkg, r.test, r.reason)))
		}
	}
	fmt.Fprintf(out, "\n%-12s %8s %8s %8s\n", "", "passed", "failed", "skipped")
	for _, environment := range environments {
		fmt.Fprintf(out, "%-12s", environment)
		for _, action := range actions {
			fmt.Fprintf(out, " %8d", counts[environment][action])
		}
		fmt.Fprintln(out)
	}
	printReasons(out, reasons)
	printFailures(out, failures)
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", total["pass"], total["fail"], total["skip"])
	return total["fail"]
}

func printReasons(out io.Writer, reasons map[string]int) {
	if len(reasons) == 0 {
		return
	}
	fmt.Fprintln(out, "\nskipped, by reason:")
	var sorted []string
	for reason := range reasons {
		sorted = append(sorted, reason)
	}
	slices.Sort(sorted)
	for _, reason := range sorted {
		fmt.Fprintf(out, "%8d  %s\n", reasons[reason], reason)
	}
}

func printFailures(out io.Writer, failures []string) {
	if len(failures) == 0 {
		return
	}
	fmt.Fprintln(out, "\nfailed:")
	for _, failure := range failures {
		fmt.Fprintln(out, "  "+failure)
	}
}
