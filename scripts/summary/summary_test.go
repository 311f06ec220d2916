// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// events writes `go test -json` lines tersely: "action package [test] [: output]".
func events(lines ...string) string {
	var out strings.Builder
	for _, line := range lines {
		head, output, _ := strings.Cut(line, " : ")
		fields := append(strings.Fields(head), "", "")
		out.WriteString(`{"Action":"` + fields[0] + `","Package":"` + fields[1] + `","Test":"` + fields[2] + `","Output":"` + output + `\n"}` + "\n")
	}
	return out.String()
}

var summaryTests = []struct {
	name   string
	input  string
	record []string
	ci     bool
	last   string
	within string // what else the table says
	fails  bool
}{
	{
		name:  "leaves are counted, parents are not",
		input: events("start p", "run p T", "run p T/a", "pass p T/a", "run p T/b", "pass p T/b", "pass p T", "pass p"),
		last:  "2 passed, 0 failed, 0 skipped",
	},
	{
		name:   "a parent that fails by itself",
		input:  events("start p", "run p T", "run p T/a", "pass p T/a", "fail p T", "fail p"),
		last:   "1 passed, 1 failed, 0 skipped",
		within: "native: p T\n",
		fails:  true,
	},
	{
		name:  "a package that does not build",
		input: events("fail p"),
		last:  "0 passed, 1 failed, 0 skipped",
		fails: true,
	},
	{
		name:   "a skip with its reason",
		input:  events("start p", "run p T", "output p T : x_test.go:1: SKIP-REASON: full tier: refused", "skip p T", "pass p"),
		last:   "0 passed, 0 failed, 1 skipped",
		within: "1  native: full tier: refused\n",
	},
	{
		name:   "a skip with a message",
		input:  events("start p", "run p T", "output p T :     x_test.go:1: too old: 2", "output p T : --- SKIP: T", "skip p T", "pass p"),
		last:   "0 passed, 0 failed, 1 skipped",
		within: "1  native: too old: 2\n",
	},
	{
		name:  "a missing tool in CI",
		input: events("start p", "run p T", "output p T : SKIP-REASON: tool: x is missing", "skip p T", "pass p"),
		ci:    true,
		last:  "0 passed, 1 failed, 0 skipped",
		fails: true,
	},
	{
		name:   "a guest that died",
		input:  events("start p", "run p T") + "vm: the guest died\n",
		record: []string{"-expect", "p q"},
		last:   "0 passed, 2 failed, 0 skipped",
		within: "native: q\n",
		fails:  true,
	},
	{
		name:   "a guest that can't be had",
		record: []string{"-expect", "p q", "-skip", "vm: cannot run: no qemu"},
		last:   "0 passed, 0 failed, 2 skipped",
	},
	{
		name:   "a guest that can't be had in CI",
		record: []string{"-expect", "p q", "-skip", "vm: cannot run: no qemu"},
		ci:     true,
		last:   "0 passed, 2 failed, 0 skipped",
		fails:  true,
	},
}

func TestSummary(t *testing.T) {
	for _, test := range summaryTests {
		t.Run(test.name, func(t *testing.T) {
			text, err := summarize(t, test.input, test.record, test.ci)
			if (err != nil) != test.fails {
				t.Errorf("error %v, want one: %v", err, test.fails)
			}
			if !strings.HasSuffix(text, "\n"+test.last+"\n") {
				t.Errorf("got:\n%swant the last line %q", text, test.last)
			}
			if !strings.Contains(text, test.within) {
				t.Errorf("got:\n%swant %q in it", text, test.within)
			}
		})
	}
}

// summarize records events and returns the table made of them.
func summarize(t *testing.T, input string, flags []string, ci bool) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "results")
	arguments := append(append([]string{"record"}, flags...), file)
	if err := run(arguments, strings.NewReader(input), io.Discard, ci); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	err := run([]string{"table", "native=" + file}, nil, &text, ci)
	return text.String(), err
}

func TestRecordPrintsFailures(t *testing.T) {
	input := events("start p", "run p Good", "output p Good : good", "pass p Good", "run p Bad", "output p Bad : bad", "fail p Bad", "fail p")
	var text strings.Builder
	if err := run([]string{"record", filepath.Join(t.TempDir(), "f")}, strings.NewReader(input), &text, false); err != nil {
		t.Fatal(err)
	}
	if got, want := text.String(), "bad\nfail p 0.0s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUsage(t *testing.T) {
	for _, arguments := range [][]string{nil, {"table"}, {"table", "x"}, {"record"}, {"record", "-x", "f"}, {"other", "f"}} {
		if err := run(arguments, nil, &strings.Builder{}, false); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", arguments, err)
		}
	}
}
