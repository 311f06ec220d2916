// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"strings"
	"testing"
	"time"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func printed(color bool, events ...Event) string {
	var b strings.Builder
	c := &clock{epoch}
	p := NewPrinter(&b, color, time.UTC, c.now)
	for i := range events {
		if err := p.Print(&events[i]); err != nil {
			return err.Error()
		}
	}
	if err := p.Flush(); err != nil {
		return err.Error()
	}
	return b.String()
}

func TestPrintLines(t *testing.T) {
	act := func(change func(*Event)) Event {
		ev := Event{Kind: Action, Time: epoch, Agent: LocalAgents + "rev", Verdict: "deny", Operation: "open",
			Access: []string{"read", "write"}, Reason: "default", Object: &Object{Type: "file", Path: "/a"}, PID: 7, Executable: "/bin/cat"}
		change(&ev)
		return ev
	}
	for want, ev := range map[string]Event{
		"2026-01-01 00:00:00.000 DENY rev open read,write /a no rule allows it /bin/cat[7]": act(func(*Event) {}),
		"… AUDIT example.org/x open read,write /a p/files/1 (3 times) /bin/cat[7]": act(func(e *Event) {
			e.Verdict, e.Agent, e.Rule, e.Reason, e.Count = "audit", "spiffe://example.org/x", "p/files/1", "rule", 3
		}),
		"… allow rev connect [::1]:80 tcp no rule allows it [7]": act(func(e *Event) {
			e.Verdict, e.Operation, e.Access, e.Executable = "allow", "connect", nil, ""
			e.Object = &Object{Type: "inet", Address: "::1", Port: 80, Protocol: "tcp"}
		}),
		`… DENY rev rename /a\nDENY x\x1b[2J -> …b\\c wider /bin/\xff[7]`: act(func(e *Event) {
			e.Operation, e.Access, e.Reason, e.Executable = "rename", nil, "wider", "/bin/\xff"
			e.Object, e.Target = &Object{Path: "/a\nDENY x\x1b[2J"}, &Object{Path: `b\c`, Cut: true}
		}),
		"… allow rev open read,write /a grant g-1 /bin/cat[7]": act(func(e *Event) {
			e.Verdict, e.Reason, e.Grant = "allow", "grant", "g-1"
		}),
		`… DENY rev open read,write /a grant g\n1: ended /bin/cat[7]`: act(func(e *Event) {
			e.Reason, e.Grant = "ended", "g\n1"
		}),
		"… grant rev grant ended grant=g-1 session=s-1 how=expired": {Kind: Grant, Time: epoch, Agent: LocalAgents + "rev",
			Session: "s-1", Grant: "g-1", Message: "grant ended", Fields: map[string]string{"how": "expired"}},
		"… DENY rev signal process 9 privilege /bin/cat[7]": act(func(e *Event) {
			e.Operation, e.Access, e.Reason, e.Object = "signal", nil, "privilege", &Object{Type: "process", PID: 9}
		}),
		"… DENY rev socket socket netlink raw socket /bin/cat[7]": act(func(e *Event) {
			e.Operation, e.Access, e.Reason, e.Object = "socket", nil, "socket", &Object{Type: "socket", Family: "netlink", Protocol: "raw"}
		}),
		"… DENY - bpf - fault": {Kind: Action, Time: epoch, Verdict: "deny", Operation: "bpf", Reason: "fault"},
		`… session rev started session=s-1 task=T\n1 a=b\tc command=sh`: {Kind: Session, Time: epoch, Agent: LocalAgents + "rev",
			Session: "s-1", Task: "T\n1", Message: "started", Fields: map[string]string{"command": "sh", "a": "b\tc"}},
		`… system - stopped\nby hand`: {Kind: System, Time: epoch, Message: "stopped\nby hand"},
	} {
		got := printed(false, ev)
		if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") || strings.HasSuffix(got, " \n") {
			t.Errorf("not one trimmed line: %q", got)
		}
		squeezed := strings.Join(strings.Fields(got), " ")
		if squeezed != strings.Replace(want, "… ", "2026-01-01 00:00:00.000 ", 1) && squeezed != want {
			t.Errorf("got  %s\nwant %s", squeezed, want)
		}
	}
}

func TestPrintColor(t *testing.T) {
	ev := Event{Kind: Action, Time: epoch, Verdict: "deny"}
	if got := printed(true, ev); !strings.Contains(got, "\x1b[1;31mDENY\x1b[0m") {
		t.Errorf("%q", got)
	}
	if got := printed(false, ev); strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
}

func TestPrintAligns(t *testing.T) {
	a, b := action(LocalAgents+"a-long-agent", "/1"), action(LocalAgents+"b", "/2")
	lines := strings.Split(printed(false, a, b), "\n")
	if strings.Index(lines[0], "/1") != strings.Index(lines[1], "/2") {
		t.Errorf("columns differ:\n%s\n%s", lines[0], lines[1])
	}
}

func TestPrintFolds(t *testing.T) {
	var b strings.Builder
	c := &clock{epoch}
	p := NewPrinter(&b, false, time.UTC, c.now)
	step := func(what string, d time.Duration, do func() error, wantLines int, want string) {
		t.Helper()
		c.t = c.t.Add(d)
		b.Reset()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); strings.Count(got, "\n") != wantLines || !strings.Contains(got, want) {
			t.Errorf("%s: printed %q, want %d lines with %q", what, got, wantLines, want)
		}
	}
	print := func(path string, count uint64) func() error {
		ev := action("a", path)
		ev.Count = count
		return func() error { return p.Print(&ev) }
	}
	step("first", 0, print("/x", 0), 1, "/x")
	step("repeat", 0, print("/x", 0), 0, "")
	step("too early", foldQuiet/2, p.Quiet, 0, "")
	step("quiet", foldQuiet, p.Quiet, 1, "… repeated 1 time\n")
	step("still quiet", foldQuiet, p.Quiet, 0, "")
	step("kernel count", 0, print("/x", 9), 0, "")
	step("another", 0, print("/y", 0), 2, "… repeated 9 times\n")
	step("back", 0, print("/x", 0), 1, "/x")
	for range 10 {
		step("steady", foldQuiet/4, print("/x", 0), 0, "")
	}
	step("long", foldTell, print("/x", 0), 1, "… repeated 11 times\n")
	step("repeat", 0, print("/x", 0), 0, "")
	step("flush", 0, p.Flush, 1, "… repeated 1 time\n")
	step("repeat", 0, print("/x", 0), 0, "")
	step("note", 0, func() error { return p.Print(&Event{Kind: System, Message: "note"}) }, 2, "… repeated 1 time\n")
	step("note again", 0, func() error { return p.Print(&Event{Kind: System, Message: "note"}) }, 1, "note")
	step("end", 0, p.Flush, 0, "")
}
