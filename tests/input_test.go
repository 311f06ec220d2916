// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// testInput hands the daemon what is wrong, too much or dangerous to print.
func testInput(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	for _, x := range []struct{ name, policy, says string }{
		{"not YAML", "a: [", "<stdin>:1:"},
		{"an unknown field", strings.Replace(simplePolicy, "presets", "preset", 1), `<stdin>:7:3: error: unknown field "preset"`},
		{"a name with control characters", strings.Replace(simplePolicy, "simple", `"a\nb\e[31m"`, 1), `a\nb\x1b[31m`},
		{"a host", simplePolicy + "  network: [{allow: connect, host: example.org}]\n", "<stdin>:10:"},
		{"nothing", "", "holds no document"},
		{"a right taken and given", strings.Replace(simplePolicy, "files:", "files:\n    - {path: %WORK%, deny: [read]}", 1), "<stdin>:"},
		{"a second of the same name", simplePolicy + "---" + simplePolicy, "simple"},
	} {
		t.Run(x.name, func(t *testing.T) {
			printable(t, h.apply(t, x.policy).ended(t, 2).says(t, x.says).stderr)
		})
	}
	h.run(t, "worker", "/bin/true").ok(t)
	if list := h.bailiff(t, "policy", "list").ok(t).stdout; !strings.Contains(list, "simple") || strings.Count(list, "\n") != 3 {
		t.Errorf("other policies are in force than before:\n%s", list)
	}
	t.Run("a file too large", func(t *testing.T) {
		if kerneltest.InVM() {
			t.Skip(kerneltest.SkipReason + "time: nothing in it depends on the kernel")
		}
		path := filepath.Join(h.dir, "large.yaml")
		write(t, path, h.expand(simplePolicy)+strings.Repeat("# "+strings.Repeat("x", 1021)+"\n", 65<<10))
		h.bailiff(t, "policy", "apply", path).ended(t, 2).says(t, "larger than 64 MiB")
		must(t, os.Remove(path))
	})
	t.Run("names", func(t *testing.T) { testNames(t, h) })
	t.Run("many rules", func(t *testing.T) { testManyRules(t, h) })
}

// printable fails the test if a text holds what a terminal may obey.
func printable(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%q holds %q", text, r)
			return
		}
	}
}

// testNames uses names that would take over a terminal or forge a line.
func testNames(t *testing.T, h *host) {
	const evil = "x\nforged\x1b[2J\u202e\u009b"
	c := h.command("run", "--agent", "worker", "--task", evil, "--context", evil+"="+evil, "--", "/bin/bash", "-c",
		`{ true 3<>/dev/tcp/127.0.0.1/9; cat "$1"; } 2>/dev/null; true`, "bash", filepath.Join(h.dir, evil))
	write(t, filepath.Join(h.dir, evil), "secret")
	run := finish(t, c).ok(t)
	printable(t, run.stderr)
	for _, args := range [][]string{
		{"sessions", "list", "--all"},
		{"tail", "--state-dir", h.state, "-n", "50"},
		{"tail", "--state-dir", h.state, "-n", "50", "-o", "json"},
		{"sessions", "list", "--all", "-o", "json"},
		{"policy", "list"},
	} {
		out := h.bailiff(t, args...).ok(t)
		printable(t, out.stdout+out.stderr)
		if strings.Contains(out.stdout, "\nforged") {
			t.Errorf("%v: a name forged a line:\n%s", args, out.stdout)
		}
	}
	for _, args := range [][]string{
		{"policy", "delete", evil}, {"policy", "show", evil}, {"sessions", "stop", evil}, {"policy", "apply", evil},
		{"run", "--agent", evil, "--", "/bin/true"}, {"run", "--agent", "worker", "--", evil}, {"tail", "--state-dir", evil},
	} {
		out := h.bailiff(t, args...)
		if out.code == 0 {
			t.Errorf("%q succeeded", args)
		}
		printable(t, out.stderr)
	}
}

// testManyRules applies as many rules as a document may have; they hold.
func testManyRules(t *testing.T, h *host) {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(simplePolicy, "simple", "many"))
	const rules = 99_999
	for i := range rules {
		fmt.Fprintf(&b, "    - {path: /data/%02d/%03d, allow: [read]}\n", i/1000, i%1000)
	}
	write(t, "/data/99/998", "told")
	write(t, "/data/99/999", "hidden")
	t.Cleanup(func() { os.RemoveAll("/data/99") })
	began := time.Now()
	h.enforce(t, b.String())
	t.Logf("applying %d rules took %v", rules+1, time.Since(began).Round(10*time.Millisecond))
	if s := h.shell(t, "worker", "cat /data/99/998").ok(t); s.stdout != "told" {
		t.Errorf("cat printed %q", s.stdout)
	}
	if s := h.shell(t, "worker", "cat /data/99/999"); s.code == 0 {
		t.Error("a file that no rule names was read")
	}
	h.apply(t, b.String()+"    - {path: /data/more, allow: [read]}\n").ended(t, 2).says(t, "100000")
	h.enforce(t, simplePolicy)
}
