// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bailiff.dev/bailiff/policy"
)

// guardedRuleset compiles the built-in guardrail of a daemon with a policy that
// allows everything.
func guardedRuleset(t *testing.T, d *Daemon, mode string) (*policy.Ruleset, []policy.Document) {
	t.Helper()
	c := candidate{}
	builtin, err := d.builtin()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.addBuiltin(builtin); err != nil {
		t.Fatal(err)
	}
	docs, problems := policy.Parse("f.yaml", []byte(`
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: all}
spec:
  subject: {spiffeID: "spiffe://example.org/any"}
  mode: `+mode+`
  files:
    - {path: /, allow: [read, write, create, delete, execute]}
    - {path: /sys/fs/cgroup/deeper/than/the/guardrail, allow: [write]}
  network:
    - {allow: connect, unix: /}
`))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	c.docs = append(c.docs, docs...)
	if problems := policy.Check(c.docs); len(problems) > 0 {
		t.Fatal(problems)
	}
	r, problems := policy.Compile("spiffe://example.org/any", c.docs)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return r, c.docs
}

// No policy opens what is built in, and what lies beside it stays the policy's.
func TestBuiltinGuardrail(t *testing.T) {
	dir := t.TempDir()
	c := Defaults()
	c.StateDir, c.RunDir = filepath.Join(dir, "state"), filepath.Join(dir, "link", "run")
	for _, err := range []error{os.Mkdir(filepath.Join(dir, "real"), 0o700), os.Symlink("real", filepath.Join(dir, "link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &Daemon{o: Options{Config: c, ConfigFile: filepath.Join(dir, "own.yaml")}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"enforce", "audit"} {
		r, _ := guardedRuleset(t, d, mode)
		for path, want := range map[string]policy.Access{
			dir + "/state/log/events.jsonl":              everything,
			dir + "/real/run/admin.sock":                 change | policy.Connect,
			dir + "/real/run/agent.sock":                 change,
			dir + "/link":                                change,
			dir + "/own.yaml":                            change,
			self:                                         change,
			"/etc/bailiff/bailiffd.yaml":                 change,
			"/etc/systemd/system/bailiffd.service":       change,
			"/sys/fs/bpf/bailiff":                        everything,
			"/sys/fs/cgroup/deeper/than/the/guardrail":   change,
			"/proc/sys/kernel/ftrace_enabled":            change,
			"/proc/sysrq-trigger":                        change,
			"/proc/17/oom_score_adj":                     change,
			"/proc/self/task/17/oom_score_adj":           change,
			"/proc/self/comm":                            0,
			"/proc/self/fd":                              0,
			"/run/systemd/private":                       policy.Connect,
			"/run/dbus/system_bus_socket":                policy.Connect,
			"/run/systemd/journal/socket":                0,
			"/dev/null":                                  0,
			dir + "/work":                                0,
			dir:                                          0,
			"/etc/hosts":                                 0,
			filepath.Join(filepath.Dir(self), "another"): 0,
		} {
			s := r.Files.States[r.Files.Walk(components(path))]
			if s.Guard != want {
				t.Errorf("%s: %s: %s is guarded, want %s", mode, path, s.Guard, want)
			}
			if s.Allow&want != 0 || s.Allow|want != everything|policy.Connect {
				t.Errorf("%s: %s: %s is allowed", mode, path, s.Allow)
			}
		}
	}
}

// An allow line around guarded places is one problem on the basic tier; lines
// beside them are none.
func TestBuiltinGuardrailWithoutLSM(t *testing.T) {
	d := &Daemon{o: Options{Config: Defaults()}}
	r, docs := guardedRuleset(t, d, "enforce")
	_, problems := r.Landlock(docs)
	var got []string
	for _, p := range problems {
		if strings.Contains(p.Message, "guardrail") {
			got = append(got, p.String())
		}
	}
	if len(got) != 1 || !strings.HasPrefix(got[0], "f.yaml:9:7: unsupported: all/files/0 (") || !strings.Contains(got[0], "such as {path: /var/lib/bailiff") {
		t.Errorf("%q", got)
	}
	for _, example := range []string{"coding-agent.yaml", "minimal.yaml"} {
		text, err := os.ReadFile("../examples/" + example)
		if err != nil {
			t.Fatal(err)
		}
		own, _ := policy.Parse(example, text)
		all := append(docs[:1:1], own...)
		r, _ := policy.Compile(own[0].Subjects()[0], all)
		_, problems := r.Landlock(all)
		for _, p := range problems {
			if strings.Contains(p.Message, "guardrail") {
				t.Errorf("%s", p)
			}
		}
		before, _ := policy.Compile(own[0].Subjects()[0], own)
		if grown := len(r.Files.States) - len(before.Files.States); grown > 150 {
			t.Errorf("%s: the guardrail takes %d states more than %d", example, grown, len(before.Files.States))
		}
	}
}

// Names that patterns and YAML read otherwise are guarded all the same.
func TestBuiltinTextOfStrangeNames(t *testing.T) {
	sections := mountSections([]mount{
		{1, "/", "/mnt/a b*[\"\n\\x", "cgroup2"}, {2, "/part", "/mnt/part", "cgroup2"}, {3, "/", "/mnt/\xff", "bpf"},
		{4, "/", "/" + strings.Repeat("d/", 70) + "x", "sysfs"}, {5, "/", "/", "proc"}, {6, "/", "/mnt/a b*[\"\n\\x/below", "cgroup"},
	})
	text := builtinText(sections, []string{"/run/x"})
	docs, problems := policy.ParseBuiltin("<builtin>", []byte(text))
	if err := problems.Err(); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	own, _ := policy.Parse("f.yaml", []byte("apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: a}\nspec:\n  subject: {spiffeID: a}\n"))
	r, _ := policy.Compile(own[0].Subjects()[0], append(docs, own...))
	for path, want := range map[string]policy.Access{
		"/mnt/a b*[\"\n\\x/y": change, "/mnt/a bc[\"\n\\x/y": 0, "/mnt/part": 0, "/mnt/\xff": everything,
		"/" + strings.Repeat("d/", 70) + "x": change, "/sys/x": change, "/1/autogroup": change, "/1/mem": 0,
	} {
		if got := r.Files.States[r.Files.Walk(components(path))].Guard; got != want {
			t.Errorf("%q: %s is guarded, want %s", path, got, want)
		}
	}
	if n := strings.Count(text, "below"); n != 0 {
		t.Errorf("a place is written though another covers it:\n%s", text)
	}
}

// A file that stands for no configuration is not guarded: every program writes to it.
// One that is missing is, so that nobody makes it.
func TestBuiltinConfigFile(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.yaml")
	for file, guarded := range map[string]bool{os.DevNull: false, "": false, missing: true} {
		d := &Daemon{o: Options{Config: Defaults(), ConfigFile: file}}
		r, _ := guardedRuleset(t, d, "enforce")
		path := file
		if path == "" {
			path = os.DevNull
		}
		judged, err := r.JudgePath(path, policy.Write|policy.Create)
		if err != nil || judged.Allow == guarded {
			t.Errorf("%q: %+v, %v", file, judged, err)
		}
	}
}
