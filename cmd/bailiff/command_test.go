// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/control"
)

// stream is a standard stream that a test reads while a command writes.
type stream struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *stream) await(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !strings.Contains(s.String(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q did not come; there is %q", want, s.String())
		}
	}
}

func testEnvironment(args ...string) (env *environment, stdout, stderr *stream) {
	stdout, stderr = &stream{}, &stream{}
	return &environment{
		args: args, stdin: strings.NewReader(""), stdout: stdout, stderr: stderr,
		getenv: func(string) string { return "" }, zone: time.UTC,
		now:         func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) },
		isTerminal:  func(any) bool { return false },
		localProbes: func() []probe { return []probe{{Name: "kernel", Result: "none", Remedy: "get one"}} },
	}, stdout, stderr
}

func TestTailFollowsAcrossRotation(t *testing.T) {
	state := t.TempDir()
	w, err := audit.Open(audit.Options{Dir: audit.Directory(state), MaxBytes: 1, Delay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write := func(id string) {
		w.Write(audit.Event{ID: id, Kind: audit.System, Message: id})
		w.Flush()
	}
	write("before")
	env, stdout, stderr := testEnvironment("tail", "-f", "--state-dir", state)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	go func() { done <- run(ctx, env) }()
	stdout.await(t, "before")
	for _, id := range []string{"one", "two", "three"} {
		write(id)
	}
	stdout.await(t, "three")
	cancel()
	if code := <-done; code != 0 || stderr.String() != "" || strings.Count(stdout.String(), "\n") != 4 {
		t.Errorf("exit status %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
}

func TestTailColorsTerminalsOnly(t *testing.T) {
	state := t.TempDir()
	w, err := audit.Open(audit.Options{Dir: audit.Directory(state)})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(audit.Event{Kind: audit.Action, Verdict: "deny"})
	w.Close()
	for _, c := range []struct {
		terminal      bool
		env, flag     string
		colorExpected bool
	}{
		{true, "", "auto", true},
		{true, "NO_COLOR", "auto", false},
		{true, "NO_COLOR", "always", true},
		{true, "", "never", false},
		{false, "", "auto", false},
		{false, "", "always", true},
	} {
		env, stdout, _ := testEnvironment("tail", "--state-dir", state, "--color", c.flag)
		env.isTerminal = func(any) bool { return c.terminal }
		env.getenv = func(name string) string {
			if name == c.env {
				return "1"
			}
			return ""
		}
		if code := run(context.Background(), env); code != 0 || strings.Contains(stdout.String(), "\x1b") != c.colorExpected {
			t.Errorf("%+v: exit status %d, %q", c, code, stdout)
		}
	}
}

// A document is shown byte for byte to programs, and tamed for terminals.
func TestDocumentOnTerminal(t *testing.T) {
	env, _, _ := testEnvironment()
	text := []byte("a:\tb # \u009b\r\nc\n")
	if got := env.document(text); !bytes.Equal(got, text) {
		t.Errorf("to a pipe: %q", got)
	}
	env.isTerminal = func(any) bool { return true }
	if got, want := string(env.document(text)), "a:        b # \\u009b\\r\nc\n"; got != want {
		t.Errorf("to a terminal: %q, want %q", got, want)
	}
}

func TestDoctorWithoutDaemonPrintsProbes(t *testing.T) {
	env, stdout, stderr := testEnvironment("doctor", "--socket", filepath.Join(t.TempDir(), "s"))
	if code := run(context.Background(), env); code != exitFailure || !strings.Contains(stdout.String(), "get one") || !strings.Contains(stderr.String(), "bailiffd is not running") {
		t.Errorf("exit status %d\n%s\n%s", code, stdout, stderr)
	}
}

// Text of the daemon does not steer the terminal.
func TestErrorsAreEscaped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(control.ListenOptions{Path: path, Mode: 0o600, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"code":"not_found","message":"no \u001b[31m"}`)
	})}
	go server.Serve(l)
	defer server.Close()
	env, _, stderr := testEnvironment("policy", "list", "--socket", path)
	if code := run(context.Background(), env); code != exitFailure || stderr.String() != "bailiff: no \\x1b[31m\n" {
		t.Errorf("exit status %d: %q", code, stderr)
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		said string
	}{
		{nil, exitOK, ""},
		{io.ErrUnexpectedEOF, exitFailure, "bailiff: unexpected EOF\n"},
		{&exitError{code: 7}, 7, ""},
		{usageError("no %s", "good"), exitUsage, "bailiff: no good\n"},
		{connect.NewError(connect.CodeUnavailable, &control.DialError{Path: "/s", Err: unix.EACCES}), exitFailure, "bailiff: you may not use /s: "},
	} {
		env, _, stderr := testEnvironment()
		if code := env.report(c.err); code != c.code || !strings.HasPrefix(stderr.String(), c.said) || (c.said == "") != (stderr.String() == "") {
			t.Errorf("%v: %d %q", c.err, code, stderr)
		}
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"10m":                       now.Add(-10 * time.Minute),
		"1h30m":                     now.Add(-90 * time.Minute),
		"2d":                        now.AddDate(0, 0, -2),
		"0s":                        now,
		"2026-02-28T12:00:00+01:00": time.Date(2026, 2, 28, 11, 0, 0, 0, time.UTC),
	} {
		if got, err := parseSince(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "-5m", "1.5d", "10", "2026-02-30T00:00:00Z", "99999999999d"} {
		if got, err := parseSince(s, now); err == nil {
			t.Errorf("%q taken for %v", s, got)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"policy", "sessions", "tail", "doctor", "version"}
	for given, want := range map[string]string{
		"polcy": "policy", "sesions": "sessions", "tali": "tail", "doc": "doctor", "": "", "xyzzy": "", "verison": "version",
	} {
		if got := nearest(given, names); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}

func TestCgroup2Mount(t *testing.T) {
	for mountinfo, want := range map[string]string{
		"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n":                                                    "/sys/fs/cgroup",
		"30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw,nsdelegate\n": "/sys/fs/cgroup/unified",
		"30 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,cpu\n":                                                                  "",
		"": "", "junk - cgroup2\n": "",
	} {
		if got := cgroup2Mount(mountinfo); got != want {
			t.Errorf("%q: %q, want %q", mountinfo, got, want)
		}
	}
}

func TestPrintableJSON(t *testing.T) {
	in := "{\"a\":\"\u009b\x7fé\u202e\U000e0001\"}"
	if got, want := string(printableJSON([]byte(in))), `{"a":"\u009b\u007fé\u202e\udb40\udc01"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
