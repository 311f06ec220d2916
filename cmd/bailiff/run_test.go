// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"bailiff.dev/bailiff/internal/launch"
)

// tryRun runs one `bailiff run` line with a launcher that only answers. It
// returns what the launcher was asked (nil: nothing), the signal that the
// process would have died from, the exit status and what was printed.
func tryRun(t *testing.T, status launch.Status, failure error, args ...string) (asked *launch.Options, died syscall.Signal, code int, stderr string) {
	t.Helper()
	var errs bytes.Buffer
	env := &environment{stderr: &errs, getenv: func(string) string { return "" }, socket: "/run/b/admin.sock"}
	c := runCommandWith(env, func(o launch.Options) (launch.Status, error) {
		asked = &o
		return status, failure
	}, func(s launch.Status) { died = s.Signal })
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	code = env.report(c.Execute())
	return asked, died, code, errs.String()
}

func TestRunAsksTheLauncher(t *testing.T) {
	asked, _, code, _ := tryRun(t, launch.Status{}, nil,
		"--agent", "a", "--task", "T", "--context", "k=v=w", "--context", "l=", "--user", "u", "--keep-fd", "7,3", "--keep-fd", "9", "-q", "--", "prog", "--agent", "b", "--", "c")
	if asked == nil || code != 0 {
		t.Fatalf("exit %d, asked %v", code, asked)
	}
	want := launch.Options{
		Agent: "a", Task: "T", Context: map[string]string{"k": "v=w", "l": ""}, User: "u", Quiet: true, Keep: []int{7, 3, 9},
		Command:     []string{"prog", "--agent", "b", "--", "c"},
		AdminSocket: "/run/b/admin.sock", AgentSocket: "/run/b/agent.sock",
		Executable: "/proc/self/exe", Args: []string{"bailiff", confineName},
		Environ: asked.Environ, Stderr: asked.Stderr,
	}
	if !reflect.DeepEqual(*asked, want) {
		t.Errorf("asked %+v\nwant  %+v", *asked, want)
	}
	if asked, _, _, _ := tryRun(t, launch.Status{}, nil, "--agent", "a", "prog", "-q", "--task", "x"); asked == nil || len(asked.Command) != 4 || asked.Quiet {
		t.Errorf("without --: asked %+v", asked)
	}
}

func TestRunStatus(t *testing.T) {
	for _, tt := range []struct {
		status  launch.Status
		failure error
		code    int
		died    syscall.Signal
		stderr  string
	}{
		{launch.Status{}, nil, 0, 0, ""},
		{launch.Status{Code: 7}, nil, 7, 0, ""},
		{launch.Status{Signal: syscall.SIGTERM}, nil, 128 + 15, syscall.SIGTERM, ""},
		{launch.Status{}, &launch.Error{Code: launch.ExitNotFound, Text: "x: command not found"}, 127, 0, "bailiff: x: command not found\n"},
		{launch.Status{}, errors.New("broken"), 125, 0, "bailiff: broken\n"},
	} {
		_, died, code, stderr := tryRun(t, tt.status, tt.failure, "--agent", "a", "prog")
		if code != tt.code || died != tt.died || stderr != tt.stderr {
			t.Errorf("%+v: exit %d, died %v, %q", tt, code, died, stderr)
		}
	}
}

func TestRunUsage(t *testing.T) {
	for _, tt := range []struct{ line, stderr string }{
		{"-- prog", "needs --agent"},
		{"--agent a", "needs a command"},
		{"--agent a --context k prog", "must be KEY=VALUE"},
		{"--agent a --context =v prog", "must be KEY=VALUE"},
		{"--agent a --context k=1 --context k=2 prog", "each key given once"},
		{"--agent a --keep-fd 3,x prog", `--keep-fd "3,x" must be the number of an open descriptor`},
		{"--agent a --keep-fd 3, prog", `--keep-fd "3," must be the number`},
		{"--agnt a prog", "did you mean --agent?"},
	} {
		asked, _, code, stderr := tryRun(t, launch.Status{}, nil, strings.Fields(tt.line)...)
		if asked != nil || code != launch.ExitFailed || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%s: exit %d, asked %v, %q", tt.line, code, asked, stderr)
		}
	}
}
