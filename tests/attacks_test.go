// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// attack is something a session must not do, beside the legitimate thing that is
// most like it. Both are shell commands; success is status 0.
type attack struct {
	name      string
	attack    string
	neighbour string // "": there is none
	basic     bool   // the basic tier stops it too
	fixed     bool   // no policy opens it
	guarded   bool   // no policy opens it where the built-in guardrail is enforced, on the full tier
	varies    bool   // whether a policy opens it depends on the kernel
	event     string // how its denial begins in the log; "": it leaves none
}

// attacks are tried in this order, in one session.
func attacks() []attack {
	return append(fileAttacks(), append(moveAttacks(), append(networkAttacks(), processAttacks()...)...)...)
}

func fileAttacks() []attack {
	return []attack{
		{name: "read an SSH key", attack: "cat %DIR%/home/.ssh/id_ed25519", neighbour: "cat %WORK%/notes", basic: true,
			event: "open %DIR%/home/.ssh/id_ed25519"},
		{name: "read it through a symbolic link", attack: "ln -s %DIR%/home/.ssh/id_ed25519 %WORK%/link && cat %WORK%/link",
			neighbour: "ln -s notes %WORK%/soft && cat %WORK%/soft", basic: true, event: "open %DIR%/home/.ssh/id_ed25519"},
		{name: "read it by way of a process", attack: "cat /proc/self/root%DIR%/home/.ssh/id_ed25519",
			neighbour: "cat /proc/self/root%WORK%/notes", basic: true, event: "open %DIR%/home/.ssh/id_ed25519"},
		{name: "list its directory", attack: "ls %DIR%/home/.ssh", neighbour: "ls %WORK%", basic: true, event: "open %DIR%/home/.ssh"},
		{name: "read .env", attack: "cat %WORK%/.env", neighbour: "cat %WORK%/.envrc", event: "open %WORK%/.env"},
		{name: "write a hook", attack: "echo evil > %WORK%/repo/.git/hooks/pre-commit",
			neighbour: "echo fine > %WORK%/repo/.git/description", event: "create %WORK%/repo/.git/hooks/pre-commit"},
		{name: "change what may only be read", attack: "echo evil >> %DIR%/shared/data", neighbour: "cat %DIR%/shared/data", basic: true,
			event: "open %DIR%/shared/data"},
		{name: "truncate it", attack: "truncate -s 0 %DIR%/shared/data", neighbour: "truncate -s 1 %WORK%/short", basic: true},
		{name: "change its mode", attack: "chmod 777 %DIR%/shared/data", neighbour: "chmod 700 %WORK%/notes", event: "chmod %DIR%/shared/data"},
		{name: "change its times", attack: "touch -d @1 %DIR%/shared/data", neighbour: "touch -d @1 %WORK%/notes"},
		{name: "remove it", attack: "rm -f %DIR%/shared/other", neighbour: "touch %WORK%/gone && rm %WORK%/gone", basic: true,
			event: "unlink %DIR%/shared/other"},
		{name: "run what may only be read", attack: "%DIR%/shared/true", neighbour: "%WORK%/true", basic: true, event: "exec %DIR%/shared/true"},
		{name: "run it through the loader", attack: "/lib64/ld-linux-x86-64.so.2 %DIR%/shared/true",
			neighbour: "/lib64/ld-linux-x86-64.so.2 /usr/bin/id", event: "map %DIR%/shared/true"},
		{name: "run a program that nothing names", attack: "/usr/bin/openssl version", neighbour: "/usr/bin/id", basic: true,
			event: "exec /usr/bin/openssl"},
		{name: "read the policies", attack: "cat %DIR%/state/policies", basic: true, guarded: true, event: "open %DIR%/state/policies"},
		{name: "make a device", attack: "mknod %WORK%/disk b 7 0", neighbour: "mkfifo %WORK%/fifo", fixed: true, event: "mknod %WORK%/disk"},
	}
}

// moveAttacks give a file or a directory a name with other rights.
func moveAttacks() []attack {
	return []attack{
		{name: "write through a hard link", attack: "ln %DIR%/shared/data %WORK%/hard && echo evil >> %WORK%/hard",
			neighbour: "ln %WORK%/notes %WORK%/hard2 && cat %WORK%/hard2", basic: true, event: "link %DIR%/shared/data"},
		{name: "rename .env", attack: "mv -T %WORK%/.env %WORK%/env && cat %WORK%/env", neighbour: "mv -T %WORK%/.envrc %WORK%/envrc && cat %WORK%/envrc",
			event: "rename %WORK%/.env"},
		{name: "link .env", attack: "ln %WORK%/sub/.env %WORK%/sub/env && cat %WORK%/sub/env", event: "link %WORK%/sub/.env"},
		{name: "rename the directory above hooks", attack: "mv -T %WORK%/repo/.git %WORK%/repo/dot && echo evil > %WORK%/repo/dot/hooks/pre-commit",
			neighbour: "mv -T %WORK%/repo2 %WORK%/repo3", event: "rename %WORK%/repo/.git"},
		{name: "bring hooks in from elsewhere", attack: "mkdir -p %WORK%/x/hooks && echo evil > %WORK%/x/hooks/pre-commit && mv -T %WORK%/x %WORK%/sub/.git",
			neighbour: "mkdir -p %WORK%/y/info && mv -T %WORK%/y %WORK%/sub/z", event: "rename %WORK%/x"},
		{name: "bring a file in where none may be made",
			attack:    "mkdir -p %WORK%/in/sealed && echo evil > %WORK%/in/sealed/file && rmdir %WORK%/box && mv -T %WORK%/in %WORK%/box",
			neighbour: "mkdir -p %WORK%/in2/plain && mv -T %WORK%/in2 %WORK%/box2", event: "rename %WORK%/in"},
	}
}

func networkAttacks() []attack {
	return []attack{
		{name: "reach another address", attack: "curl -sS -m 5 %OTHER%/hello", neighbour: "curl -sS -m 5 %HTTP%/hello", basic: true,
			event: "connect 127.0.0.2:%OTHERPORT%/tcp"},
		{name: "reach another port", attack: "curl -sS -m 5 -k %HTTPS%/hello", neighbour: "curl -sS -m 5 %HTTP%/hello", basic: true,
			event: "connect 127.0.0.1:%HTTPSPORT%/tcp"},
		{name: "send a datagram", attack: "echo x > /dev/udp/127.0.0.2/9", basic: true, event: "connect 127.0.0.2:9/udp"},
		{name: "listen on a port", attack: "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 4999))'",
			neighbour: "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 5001))'", basic: true, event: "listen 127.0.0.1:4999/tcp"},
		{name: "listen on whatever port", attack: "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 0))'"},
		{name: "reach a Unix socket", attack: "curl -sS -m 5 --unix-socket %DIR%/forbidden.sock http://x/hello",
			neighbour: "curl -sS -m 5 --unix-socket %DIR%/allowed.sock http://x/hello", event: "unix-connect %DIR%/forbidden.sock"},
		{name: "reach an abstract socket", attack: "curl -sS -m 5 --abstract-unix-socket forbidden-%NAME% http://x/hello",
			neighbour: "curl -sS -m 5 --abstract-unix-socket allowed-%NAME% http://x/hello", event: "unix-connect @forbidden-%NAME%"},
		{name: "use the admin API", fixed: true, basic: true,
			attack:    "curl -fsS -m 5 --unix-socket %DIR%/run/admin.sock -H 'Content-Type: application/json' -d '{}' http://x/bailiff.control.v1.AdminService/ListPolicies",
			neighbour: "curl -fsS -m 5 --unix-socket %DIR%/run/agent.sock -H 'Content-Type: application/json' -d '{}' http://x/bailiff.control.v1.AgentService/Session | grep -q '\"task\":\"task-'"},
		{name: "delete the policy", fixed: true, basic: true,
			attack: "curl -sS -m 5 --unix-socket %DIR%/run/admin.sock -H 'Content-Type: application/json' -d '{\"name\":\"none\"}' http://x/bailiff.control.v1.AdminService/DeletePolicy | grep -q 'there is no policy'"},
	}
}

func processAttacks() []attack {
	return []attack{
		{name: "signal a process outside", attack: "kill -CONT %VICTIM%", neighbour: "sleep 5 & kill -CONT $! && kill $!", fixed: true, basic: true, event: "signal"},
		{name: "read its environment", attack: "grep -q SECRET=hidden /proc/%VICTIM%/environ", neighbour: "read -d '' x < /proc/$$/environ", varies: true, basic: true},
		{name: "leave the cgroup", attack: "echo 0 > %CGROUP%/cgroup.procs", basic: true, guarded: true, event: "open %CGROUP%/cgroup.procs"},
		{name: "freeze it by its cgroup", attack: "echo 0 > %CGROUP%/%NAME%-victim/cgroup.freeze", basic: true, guarded: true, event: "open %CGROUP%/%NAME%-victim/cgroup.freeze"},
		{name: "mount", attack: "mount -t tmpfs none %WORK%/mnt && umount %WORK%/mnt", fixed: true, basic: true},
		{name: "make a user namespace", attack: "unshare -U true", fixed: true, basic: true},
		{name: "unpin the programs", attack: "rm /sys/fs/bpf/%NAME%-bait", basic: true, guarded: true, event: "unlink /sys/fs/bpf/%NAME%-bait"},
	}
}

const attackPolicy = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: attacked}
spec:
  subject: {spiffeID: attacker}
  presets: [runtime, shell, python]
  files:
    - {path: %WORK%, allow: [read, write, create, delete, execute]}
    - {path: "%WORK%/**/.git/hooks", deny: [write, create, delete]}
    - {path: "%WORK%/**/.env", deny: [read, write, create, delete, execute]}
    - {path: %WORK%/box/sealed, deny: [create]}
    - {path: %DIR%/shared, allow: [read]}
    - {path: /usr/bin/curl, allow: [read, execute]}
    - {path: /usr/bin/mount, allow: [read, execute]}
    - {path: /usr/bin/umount, allow: [read, execute]}
    - {path: /usr/bin/unshare, allow: [read, execute]}
  network:
    - {allow: connect, ip: 127.0.0.1, ports: [%HTTPPORT%]}
    - {allow: connect, unix: %DIR%/allowed.sock}
    - {allow: connect, unix: %DIR%/run/admin.sock}
    - {allow: connect, unix: %DIR%/run/agent.sock}
    - {allow: connect, unix: "@allowed-%NAME%"}
    - {allow: listen, ip: 127.0.0.1, ports: [5001]}
`

// loosePolicy opens all that a policy can open.
const loosePolicy = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: loose}
spec:
  subject: {spiffeID: attacker}
  files:
    - {path: /, allow: [read, write, create, delete, execute]}
  network:
    - {allow: connect, cidr: 0.0.0.0/0, protocol: any}
    - {allow: connect, unix: /}
    - {allow: connect, unix: "@*"}
    - {allow: listen}
`

// field is what the attacks aim at.
type field struct {
	web    *web
	host   *host
	text   *strings.Replacer
	victim int
}

// reset makes the files anew: attacks that succeed change them.
func (f *field) reset(t *testing.T) {
	t.Helper()
	script := `set -e; cd %DIR%; rm -rf work/* work/.env* home shared; umask 022
mkdir -p home/.ssh shared work/repo/.git/hooks work/repo2/.git work/sub work/box work/mnt
echo secret > home/.ssh/id_ed25519; echo data > shared/data; echo data > shared/other
cp /usr/bin/true shared/true; cp /usr/bin/true work/true
echo notes > work/notes; echo 12345 > work/short; echo secret > work/.env; echo secret > work/sub/.env; echo plain > work/.envrc
rm -f /sys/fs/bpf/%NAME%-bait; ln -s /nowhere /sys/fs/bpf/%NAME%-bait`
	if out, err := exec.Command("/bin/bash", "-c", f.text.Replace(script)).CombinedOutput(); err != nil {
		t.Fatalf("prepare the files: %v: %s", err, out)
	}
}

// outcome is how the attacks and their neighbours ended, by "attack NAME" and
// "neighbour NAME"; "0" is success.
type outcome map[string]string

// script tries all attacks and prints how each ended.
func (f *field) script(neighbours bool) string { return tryAll(attacks(), f.text, neighbours) }

func tryAll(list []attack, text *strings.Replacer, neighbours bool) string {
	var b strings.Builder
	b.WriteString(`try() { out=$(eval "$2" 2>&1 </dev/null); echo "$1=$?"; printf '%(%T)T %s: %s\n' -1 "$1" "$out" >&2; }` + "\n")
	for _, a := range list {
		if a.neighbour != "" && neighbours {
			fmt.Fprintf(&b, "try 'neighbour %s' %s\n", a.name, quote(text.Replace(a.neighbour)))
		}
		fmt.Fprintf(&b, "try 'attack %s' %s\n", a.name, quote(text.Replace(a.attack)))
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func outcomes(stdout string) outcome {
	o := outcome{}
	for line := range strings.Lines(stdout) {
		if name, code, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			o[name] = code
		}
	}
	return o
}

// testAttacks tries the attacks in a session, in one whose policy allows
// everything, and in none: an attack that fails there too proves nothing.
func testAttacks(t *testing.T, h *host) {
	f := newField(t, h)
	f.reset(t)
	h.enforce(t, f.text.Replace(attackPolicy))
	confined := h.run(t, "attacker", "/bin/bash", "-c", f.script(true))
	seen := confined.denials(t)
	f.reset(t)
	h.enforce(t, loosePolicy)
	loose := h.run(t, "attacker", "/bin/bash", "-c", f.script(false))
	f.reset(t)
	bare := h.command()
	bare.Path, bare.Args = "/bin/bash", []string{"bash", "-c", f.script(false)}
	free := finish(t, bare)
	in, open, without := outcomes(confined.stdout), outcomes(loose.stdout), outcomes(free.stdout)
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			a.check(t, h.full, in, open, without)
			if event := f.text.Replace(a.event); h.full && event != "" && !hasPrefix(seen, event) {
				t.Errorf("the log has no denial that begins with %q", event)
			}
		})
	}
	if t.Failed() {
		t.Logf("confined: %s\n%s\nloosened: %s\nunconfined: %s", confined.stderr, strings.Join(seen, "\n"), loose.stderr, free.stderr)
	}
}

func (a *attack) check(t *testing.T, full bool, confined, loose, free outcome) {
	key := "attack " + a.name
	if code := free[key]; code != "0" {
		t.Errorf("it ended with status %q outside of any session: the test proves nothing", code)
	}
	if !full && !a.basic {
		return
	}
	if a.neighbour != "" && confined["neighbour "+a.name] != "0" {
		t.Errorf("the legitimate neighbour ended with status %q", confined["neighbour "+a.name])
	}
	if code := confined[key]; code == "0" || code == "" {
		t.Errorf("it succeeded in a session (status %q)", code)
	}
	fixed := a.fixed || a.guarded && full
	switch code := loose[key]; {
	case a.varies:
	case fixed && (code == "0" || code == ""):
		t.Errorf("a policy that allows everything opened it (status %q)", code)
	case !fixed && code != "0":
		t.Errorf("it ended with status %q where the policy allows it: the test proves nothing", code)
	}
}

func hasPrefix(list []string, prefix string) bool {
	for _, s := range list {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

func newField(t *testing.T, h *host) *field {
	t.Helper()
	f := &field{web: newWeb(t, h.dir), host: h}
	other := serve(t, "tcp", "127.0.0.2:0")
	name := filepath.Base(h.dir)
	serve(t, "unix", filepath.Join(h.dir, "forbidden.sock"))
	serve(t, "unix", filepath.Join(h.dir, "allowed.sock"))
	serve(t, "unix", "@forbidden-"+name)
	serve(t, "unix", "@allowed-"+name)
	f.victim = victim(t, filepath.Join(h.cgroup(t), name+"-victim"))
	t.Cleanup(func() { os.Remove("/sys/fs/bpf/" + name + "-bait") })
	f.text = strings.NewReplacer("%WORK%", h.work, "%DIR%", h.dir, "%NAME%", name, "%VICTIM%", fmt.Sprint(f.victim),
		"%CGROUP%", h.cgroup(t), "%OTHER%", "http://"+other, "%OTHERPORT%", other[strings.LastIndexByte(other, ':')+1:],
		"%HTTPPORT%", port(f.web.plain), "%HTTPSPORT%", port(f.web.secure), "%HTTP%", f.web.plain.URL, "%HTTPS%", f.web.secure.URL)
	return f
}

// victim starts a process outside of all sessions, in a cgroup of its own.
func victim(t *testing.T, group string) int {
	t.Helper()
	must(t, os.Mkdir(group, 0o755))
	c := exec.Command("/bin/sleep", "600")
	c.Env = append(os.Environ(), "SECRET=hidden")
	must(t, c.Start())
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if !eventually(5*time.Second, func() bool { return os.Remove(group) == nil }) {
			t.Errorf("the cgroup %s stays", group)
		}
	})
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(c.Process.Pid)), 0))
	return c.Process.Pid
}
