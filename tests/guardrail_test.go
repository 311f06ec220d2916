// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// guardedActs are what no policy opens, each beside what it leaves open. Outside
// of any session all of them succeed, and undo themselves.
func guardedActs() []act {
	again := func(file string) string { return `x=$(< ` + file + `) && echo "$x" > ` + file }
	return []act{
		{name: "list the state", attack: "ls %STATE%", neighbour: "ls %DIR%", event: "open %STATE%"},
		{name: "read the log", attack: "head -c1 %STATE%/log/events.jsonl", neighbour: "head -c1 %WORK%/notes", event: "open %STATE%/log/events.jsonl"},
		{name: "write the log", attack: ": >> %STATE%/log/events.jsonl", neighbour: ": >> %WORK%/notes", event: "open %STATE%/log/events.jsonl"},
		{name: "move the state away", attack: "mv -T %STATE% %STATE%2 && mv -T %STATE%2 %STATE%",
			neighbour: "mv -T %WORK%/sub %WORK%/sub2", event: "rename %STATE%"},
		{name: "link the log", attack: "ln %STATE%/log/events.jsonl %WORK%/log && rm %WORK%/log", neighbour: "ln %WORK%/notes %WORK%/notes2",
			event: "link %STATE%/log/events.jsonl"},
		{name: "reach the admin API", attack: "curl -fsS -m 5 --unix-socket %DIR%/run/admin.sock -H 'Content-Type: application/json' -d '{}' http://x/bailiff.control.v1.AdminService/Status",
			neighbour: "curl -fsS -m 5 --unix-socket %DIR%/run/agent.sock -H 'Content-Type: application/json' -d '{}' http://x/bailiff.control.v1.AgentService/Session",
			event:     "unix-connect %DIR%/run/admin.sock"},
		{name: "put something beside the sockets", attack: "touch %DIR%/run/x && rm %DIR%/run/x", event: "create %DIR%/run/x"},
		{name: "list the pins", attack: "ls /sys/fs/bpf", event: "open /sys/fs/bpf"},
		{name: "leave the cgroup", attack: "echo 0 > %CGROUP%/cgroup.procs", neighbour: "head -c1 %CGROUP%/cgroup.controllers", event: "open %CGROUP%/cgroup.procs"},
		{name: "make a cgroup", attack: "mkdir %CGROUP%/%NAME%-x && rmdir %CGROUP%/%NAME%-x", event: "mkdir %CGROUP%/%NAME%-x"},
		{name: "make a cgroup by a bind mount", attack: "mkdir %DIR%/bind/%NAME%-y && rmdir %DIR%/bind/%NAME%-y", neighbour: "ls %DIR%/bind", event: "mkdir"},
		{name: "make a cgroup by a mount of its own", attack: "mkdir %DIR%/whole/%NAME%-z && rmdir %DIR%/whole/%NAME%-z", neighbour: "ls %DIR%/whole", event: "mkdir"},
		{name: "look at traces", attack: "ls /sys/kernel/tracing", event: "open /sys/kernel/tracing"},
		{name: "look at debugfs", attack: "ls /sys/kernel/debug", event: "open /sys/kernel/debug"},
		{name: "look at securityfs", attack: "ls /sys/kernel/security", event: "open /sys/kernel/security"},
		{name: "set ftrace_enabled", attack: again("/proc/sys/kernel/ftrace_enabled"), neighbour: "cat /proc/sys/kernel/osrelease", event: "open /proc/sys/kernel/ftrace_enabled"},
		{name: "set core_pattern", attack: again("/proc/sys/kernel/core_pattern"), neighbour: "cat /proc/sys/kernel/core_pattern", event: "open /proc/sys/kernel/core_pattern"},
		{name: "set modprobe", attack: again("/proc/sys/kernel/modprobe"), event: "open /proc/sys/kernel/modprobe"},
		{name: "open sysrq-trigger", attack: ": >> /proc/sysrq-trigger", event: "open /proc/sysrq-trigger"},
		{name: "write in sysfs", attack: ": >> /sys/power/pm_async", neighbour: "ls /sys/class/net", event: "open /sys/power/pm_async"},
		{name: "give the daemon up to the OOM killer", attack: "echo 0 > /proc/%DAEMON%/oom_score_adj", neighbour: "echo x > /proc/self/comm", event: "open /proc/"},
		{name: "look at a process by a pattern of its number", attack: "head -c1 /proc/1/status", neighbour: "head -c1 /proc/self/status"},
		{name: "read kernel memory", attack: "head -c1 /proc/kcore", event: "open /proc/kcore"},
		{name: "open /dev/mem", attack: ": < /dev/mem", neighbour: "echo x > /dev/null", event: "open /dev/mem"},
		{name: "change the configuration", attack: ": >> %DIR%/bailiffd.yaml", neighbour: "head -c1 %DIR%/bailiffd.yaml", event: "open %DIR%/bailiffd.yaml"},
		{name: "change the program of the daemon", attack: "chmod 755 %BIN%/bailiffd", neighbour: "%BIN%/bailiffd --version", event: "chmod %BIN%/bailiffd"},
		{name: "change the command", attack: "chmod 755 %BIN%/bailiff", neighbour: "%BIN%/bailiff --version", event: "chmod %BIN%/bailiff"},
		{name: "add a unit", attack: "touch /etc/systemd/system/%NAME%.service && rm /etc/systemd/system/%NAME%.service",
			neighbour: "ls /etc/systemd/system", event: "create /etc/systemd/system/%NAME%.service"},
		{name: "preload a library", attack: "ln -s none /etc/ld.so.preload && rm /etc/ld.so.preload", event: "symlink /etc/ld.so.preload"},
		{name: "change what boots", attack: "touch /boot/%NAME% && rm /boot/%NAME%", event: "create /boot/%NAME%"},
		{name: "ask systemd", attack: "curl -sS -m 5 --unix-socket /run/systemd/private http://x/hello", event: "unix-connect /run/systemd/private"},
		{name: "ask on the system bus", attack: "curl -sS -m 5 --unix-socket /run/dbus/system_bus_socket http://x/hello", event: "unix-connect /run/dbus/system_bus_socket"},
	}
}

// watchAll would allow everything even where a policy does not.
const watchAll = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: watch}
spec:
  subject: {spiffeID: attacker}
  mode: audit
  files:
    - {path: /, allow: [read, execute]}
`

// numbers is a guardrail by patterns of process numbers: those of the session's
// own processes are not meant.
const numbers = `
---
apiVersion: bailiff.dev/v1alpha1
kind: Guardrail
metadata: {name: numbers}
spec:
  subjects: ["spiffe://local/*"]
  files:
    - {path: "/proc/1*/status", deny: [read]}
    - {path: "/proc/2*/status", deny: [read]}
    - {path: "/proc/3*/status", deny: [read]}
    - {path: "/proc/4*/status", deny: [read]}
    - {path: "/proc/5*/status", deny: [read]}
    - {path: "/proc/6*/status", deny: [read]}
    - {path: "/proc/7*/status", deny: [read]}
    - {path: "/proc/8*/status", deny: [read]}
    - {path: "/proc/9*/status", deny: [read]}
`

// testGuardrail has root try, in a session, what the built-in guardrail denies:
// under a policy that allows everything and under one that only watches.
func testGuardrail(t *testing.T, h *host) {
	t.Run("listed", func(t *testing.T) { testBuiltinListed(t, h) })
	if !h.full {
		t.Skip(kerneltest.SkipReason + "full tier: Landlock cannot deny inside of what is allowed")
	}
	text := h.guardedPlaces(t)
	script := func(neighbours bool) string {
		write(t, filepath.Join(h.work, "notes"), "notes")
		must(t, os.RemoveAll(filepath.Join(h.work, "sub2")))
		must(t, os.MkdirAll(filepath.Join(h.work, "sub"), 0o755))
		return tryAll(guardedActs(), text, neighbours)
	}
	h.enforce(t, loosePolicy+numbers)
	h.mountCgroups(t) // the guardrail follows
	loose := h.run(t, "attacker", "/bin/bash", "-c", script(true))
	seen := loose.guardDenials(t)
	h.enforce(t, watchAll+numbers)
	watched := h.run(t, "attacker", "/bin/bash", "-c", script(false))
	bare := h.command()
	bare.Path, bare.Args = "/bin/bash", []string{"bash", "-c", script(false)}
	free := finish(t, bare)
	in, audited, without := outcomes(loose.stdout), outcomes(watched.stdout), outcomes(free.stdout)
	for _, a := range guardedActs() {
		t.Run(a.name, func(t *testing.T) {
			if code := without["attack "+a.name]; code != "0" {
				t.Errorf("it ended with status %q outside of any session: the test proves nothing", code)
			}
			if code := in["neighbour "+a.name]; a.neighbour != "" && code != "0" {
				t.Errorf("the legitimate neighbour ended with status %q", code)
			}
			for policy, o := range map[string]outcome{"allows everything": in, "only watches": audited} {
				if code := o["attack "+a.name]; code == "0" || code == "" {
					t.Errorf("it succeeded under a policy that %s (status %q)", policy, code)
				}
			}
			if event := text.Replace(a.event); event != "" && !hasPrefix(seen, event) {
				t.Errorf("no denial by the guardrail that begins with %q is in the log", event)
			}
		})
	}
	if t.Failed() {
		t.Logf("loose: %s\n%s\nwatched: %s\noutside: %s", loose.stderr, strings.Join(seen, "\n"), watched.stderr, free.stderr)
	}
}

// guardedPlaces makes what a guest lacks of a usual host, and names the places.
func (h *host) guardedPlaces(t *testing.T) *strings.Replacer {
	t.Helper()
	for _, dir := range []string{"/etc/systemd/system", "/boot", "/run/systemd", "/run/dbus"} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	for _, socket := range []string{"/run/systemd/private", "/run/dbus/system_bus_socket"} {
		if _, err := os.Lstat(socket); errors.Is(err, fs.ErrNotExist) {
			serve(t, "unix", socket)
		}
	}
	return strings.NewReplacer("%STATE%", h.state, "%WORK%", h.work, "%DIR%", h.dir, "%BIN%", h.bin, "%NAME%", filepath.Base(h.dir),
		"%CGROUP%", h.cgroup(t), "%DAEMON%", fmt.Sprint(h.process.Process.Pid))
}

// mountCgroups shows a part of the control groups elsewhere, and all of them.
func (h *host) mountCgroups(t *testing.T) {
	t.Helper()
	generation := h.status(t)["generation"]
	root := h.cgroup(t)
	part := filepath.Join(root, filepath.Base(h.dir)+"-part")
	must(t, os.Mkdir(part, 0o755))
	t.Cleanup(func() { os.Remove(part) })
	for dir, mount := range map[string]func(string) error{
		"bind":  func(dir string) error { return unix.Mount(part, dir, "", unix.MS_BIND, "") },
		"whole": func(dir string) error { return unix.Mount("cgroup2", dir, "cgroup2", 0, "") },
	} {
		dir = filepath.Join(h.dir, dir)
		must(t, os.Mkdir(dir, 0o755))
		must(t, mount(dir))
		t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	if !eventually(10*time.Second, func() bool { return h.status(t)["generation"] != generation }) {
		t.Error("the guardrail does not follow what is mounted")
	}
}

// guardDenials returns what the built-in guardrail denied in a session.
func (s session) guardDenials(t *testing.T) (list []string) {
	t.Helper()
	for _, ev := range s.events(t) {
		if ev.Kind == audit.Action && ev.Verdict == "deny" && (strings.HasPrefix(ev.Rule, "builtin/") || ev.Reason == "wider") {
			list = append(list, describe(&ev))
		}
	}
	return list
}

// testBuiltinListed looks at the guardrail as an administrator does.
func testBuiltinListed(t *testing.T, h *host) {
	h.enforce(t, simplePolicy)
	if list := h.bailiff(t, "policy", "list").ok(t).stdout; !strings.Contains(list, "builtin") || !strings.Contains(list, "built in") {
		t.Errorf("it is not listed:\n%s", list)
	}
	if text := h.bailiff(t, "policy", "show", "builtin").ok(t).stdout; !strings.Contains(text, "{path: "+h.state+", deny: [read, write, create, delete, execute]}") {
		t.Errorf("it does not guard the state:\n%s", text)
	}
	h.bailiff(t, "policy", "delete", "builtin").ended(t, 1).says(t, "part of Bailiff")
	h.apply(t, strings.Replace(simplePolicy, "{name: simple}", "{name: builtin}", 1)).ended(t, 2).says(t, "reserved")
	if h.full {
		return
	}
	h.apply(t, loosePolicy, "--replace").ok(t).says(t, "unsupported: loose/files/0 (", "no session will start under loose")
	h.bailiff(t, "run", "--agent", "attacker", "--", "/bin/true").ended(t, 125).says(t, "the built-in guardrail", "--accept-degraded")
}
