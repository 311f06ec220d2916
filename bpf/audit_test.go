// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// Audit mode lets through and tells, but for what a guardrail forbids.
func TestAudit(t *testing.T) {
	k := full(t)
	network(t, "10.9.0.1/24", "10.9.0.2/24")
	root := kerneltest.TmpfsDir(t)
	touch(root+"/f", root+"/x/.ssh/key", root+"/x/plain/f", root+"/x/secret")
	listenUnix(t, "unix", root+"/sock")
	s := k.start(t, rules{
		mode: "audit", guard: []string{deny("read", root+"/**/.ssh"), deny("read", root+"/x/secret")},
		guardNetwork: []string{"{deny: connect, ip: 10.9.0.2}"},
	})
	s.allowed("open", root+"/f", "rw")
	s.allowed("mkdir", root+"/dir")
	s.allowed("utimes", root+"/f")
	s.allowed("rename", root+"/x/plain/f", root+"/x/plain/g")
	s.allowed("run", "/usr/bin/true")
	s.allowed("connect", s.allowed("socket", "unix", "stream", "").Value, "unix:"+root+"/sock")
	s.want(unix.ECONNREFUSED, "connect", s.socketOf("stream", ""), "10.9.0.1:8000")
	s.allowed("sendto", s.socketOf("dgram", ""), "10.9.0.1:8000")
	s.allowed("socket", "inet", "dgram", "udplite")
	fd := s.socketOf("stream", "")
	s.allowed("bind", fd, "10.9.0.1:3000")
	s.allowed("listen", fd)

	s.denied("open", root+"/x/.ssh/key", "r")
	s.denied("open", root+"/x/secret", "r")
	s.denied("rename", root+"/x/secret", root+"/x/open")
	s.denied("link", root+"/x/secret", root+"/x/open")
	s.denied("rename", root+"/x/.ssh", root+"/x/ssh")
	s.denied("connect", s.socketOf("stream", ""), "10.9.0.2:8000")
	s.denied("sendto", s.socketOf("dgram", ""), "10.9.0.2:8000")
	deep := root + strings.Repeat("/d", 70) + "/.ssh"
	touch(deep + "/key")
	s.denied("open", deep+"/key", "r")

	seen := map[string]bool{}
	for _, ev := range k.events(t) {
		seen[ev.Operation+" "+ev.Verdict] = true
	}
	for _, want := range []string{
		"open audit", "mkdir audit", "times audit", "rename audit", "exec audit", "unix-connect audit", "connect audit",
		"send audit", "socket audit", "listen audit", "open deny", "rename deny", "link deny", "connect deny", "send deny",
	} {
		if !seen[want] {
			t.Errorf("no event %q", want)
		}
	}
}

// counted sums what an agent's verdicts were.
func (k *kernel) counted(t *testing.T, agent string, kind, verdict string) (n, dropped uint64) {
	t.Helper()
	counts, drops, err := k.Counts()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counts {
		if c.Agent == agent && c.Kind == kind && c.Verdict == verdict {
			n += c.N
		}
	}
	return n, drops[agent]
}

// With nobody reading, events are dropped and counted, and every verdict stands.
func TestDropped(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/f")
	s := k.start(t, rules{files: []string{path("read", root+"/w")}})
	before, droppedBefore := k.counted(t, testSubject, "file", "deny")
	const tries = 3000
	if got := s.allowed("many", tries, root+"/f#", "w creat").Value; got != "3000" {
		t.Errorf("%s of %d opens were denied", got, tries)
	}
	after, dropped := k.counted(t, testSubject, "file", "deny")
	if after-before != tries {
		t.Errorf("%d denials were counted, want %d", after-before, tries)
	}
	told := len(k.events(t))
	dropped -= droppedBefore
	if dropped == 0 || told == 0 || told+int(dropped) != tries {
		t.Errorf("%d events told and %d dropped of %d", told, dropped, tries)
	}
	allowedBefore, _ := k.counted(t, testSubject, "file", "allow")
	s.allowed("many", 100, root+"/w/f", "r")
	if after, _ := k.counted(t, testSubject, "file", "allow"); after-allowedBefore != 100 {
		t.Errorf("%d opens were counted, want 100", after-allowedBefore)
	}
	execs, _ := k.counted(t, testSubject, "exec", "allow")
	s.allowed("execve", executable())
	if after, _ := k.counted(t, testSubject, "exec", "allow"); after-execs != 2 {
		t.Errorf("an exec and the mapping of its program count as %d", after-execs)
	}
}

// A name that does not fit is cut, and the event says so.
func TestLongPaths(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	s := k.start(t, rules{files: []string{path("read, write, create", root), deny("read, write, create", root+"/**/leaf")}})
	long := strings.Repeat("n", 255)
	for _, n := range []int{1, 14, 30} {
		s.allowed("mkdirs", root, long, n)
		s.want(unix.EACCES, "mkdirsleaf", root, long, n, "leaf")
		var found *Event
		for _, ev := range k.events(t) {
			if ev.Operation == "mkdir" {
				found = ev
			}
		}
		if found == nil {
			t.Fatalf("%d long names: no event", n)
		}
		if last := found.Path[len(found.Path)-1]; last != "leaf" {
			t.Errorf("%d long names: the last is %q", n, last)
		}
		if whole := len(found.Path) == len(components(root))+n+1; whole == found.Cut || found.Cut != (n == 30) {
			t.Errorf("%d long names: %d components, cut %v", n, len(found.Path), found.Cut)
		}
	}
	odd := "a\nb\x1b[31m\"\\"
	if err := os.Mkdir(root+"/"+odd, 0o755); err != nil {
		t.Fatal(err)
	}
	s.denied("mkdir", root+"/"+odd+"/leaf")
	events := k.events(t)
	if len(events) == 0 || events[len(events)-1].Path[len(components(root))] != odd {
		t.Error("an odd name is not told as it is")
	}
}
