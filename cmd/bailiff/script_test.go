// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bailiff": main})
}

// TestScripts runs testdata/*.txtar. A fake daemon answers on $WORK/admin.sock;
// $WORK/state/log is an empty log directory.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   cmdStatus,
			"writelog": cmdWriteLog,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("BAILIFF_SOCKET", filepath.Join(env.WorkDir, "admin.sock"))
			if err := os.MkdirAll(audit.Directory(filepath.Join(env.WorkDir, "state")), 0o755); err != nil {
				return err
			}
			return startFake(env)
		},
	})
}

// cmdStatus runs a command that must exit with exactly that status:
// status 2 bailiff policy check x.yaml
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	code := "0"
	err := ts.Exec(args[1], args[2:]...)
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = fmt.Sprint(exit.ExitCode())
	} else if err != nil {
		code = err.Error()
	}
	if code != args[0] {
		ts.Fatalf("%v: exit status %s, want %s", args[1:], code, args[0])
	}
}

// cmdWriteLog appends the sample events to the log below a state directory.
func cmdWriteLog(ts *testscript.TestScript, _ bool, args []string) {
	w, err := audit.Open(audit.Options{Dir: audit.Directory(ts.MkAbs(args[0]))})
	ts.Check(err)
	for _, ev := range sampleEvents() {
		w.Write(ev)
	}
	ts.Check(w.Close())
}

func sampleEvents() []audit.Event {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	agent := audit.LocalAgents + "reviewer"
	key := audit.Event{ID: "e-2", Kind: audit.Action, Time: at.Add(time.Second), Agent: agent, Session: "s-1", Verdict: "deny",
		Reason: "default", Operation: "open", Access: []string{"read"}, Object: &audit.Object{Type: "file", Path: "/home/u/.ssh/id_rsa"},
		PID: 42, Executable: "/usr/bin/cat"}
	again := key
	again.ID, again.Time = "e-3", at.Add(2*time.Second)
	net := audit.Event{ID: "e-4", Kind: audit.Action, Time: at.Add(time.Hour), Agent: audit.LocalAgents + "other", Session: "s-2", Verdict: "allow",
		Reason: "rule", Rule: "other/network/0", Operation: "connect", Object: &audit.Object{Type: "inet", Address: "10.0.0.1", Port: 443, Protocol: "tcp"},
		PID: 43, Executable: "/usr/bin/cu\nrl\u009b"}
	return []audit.Event{
		{ID: "e-1", Kind: audit.Session, Time: at, Agent: agent, Session: "s-1", Message: "session started"},
		key, again, net,
		{ID: "e-5", Kind: audit.System, Time: at.Add(2 * time.Hour), Message: "bailiffd stopped"},
	}
}

func startFake(env *testscript.Env) error {
	l, err := control.Listen(control.ListenOptions{Path: filepath.Join(env.WorkDir, "admin.sock"), Mode: 0o600, Group: -1})
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewAdminServiceHandler(&fakeDaemon{}, control.HandlerOptions(control.MaxAdminMessage, log)...))
	server := control.NewServer(l, mux, log)
	go server.Serve()
	env.Defer(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(ctx)
	})
	return nil
}

// fakeDaemon answers as a daemon with one policy and two sessions would.
type fakeDaemon struct {
	controlv1connect.UnimplementedAdminServiceHandler
}

var fakeStart = timestamppb.New(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))

func fakePolicy() *controlv1.PolicyInfo {
	return &controlv1.PolicyInfo{Name: "reviewer", Kind: "AgentPolicy", Mode: "enforce", Rules: 7, Generation: 3, Applied: fakeStart,
		Subjects: []string{"spiffe://local/agent/reviewer"}}
}

func (*fakeDaemon) ListPolicies(context.Context, *connect.Request[controlv1.ListPoliciesRequest]) (*connect.Response[controlv1.ListPoliciesResponse], error) {
	return connect.NewResponse(&controlv1.ListPoliciesResponse{Generation: 3, Policies: []*controlv1.PolicyInfo{fakePolicy()}}), nil
}

func (*fakeDaemon) GetPolicy(_ context.Context, r *connect.Request[controlv1.GetPolicyRequest]) (*connect.Response[controlv1.GetPolicyResponse], error) {
	if r.Msg.Name != "reviewer" {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no policy %q; `bailiff policy list` lists them", r.Msg.Name))
	}
	return connect.NewResponse(&controlv1.GetPolicyResponse{Info: fakePolicy(), Document: []byte("kind: AgentPolicy\n# as written\n")}), nil
}

func (*fakeDaemon) DeletePolicy(context.Context, *connect.Request[controlv1.DeletePolicyRequest]) (*connect.Response[controlv1.DeletePolicyResponse], error) {
	return connect.NewResponse(&controlv1.DeletePolicyResponse{Generation: 4}), nil
}

// ApplyPolicies refuses a file that is the word wrong, and cannot enforce all of
// one that is the word degraded.
func (*fakeDaemon) ApplyPolicies(_ context.Context, r *connect.Request[controlv1.ApplyPoliciesRequest]) (*connect.Response[controlv1.ApplyPoliciesResponse], error) {
	answer := &controlv1.ApplyPoliciesResponse{}
	refuse, degraded := false, false
	for _, f := range r.Msg.Files {
		switch word := string(f.Content); {
		case word == "wrong\n":
			answer.Problems = append(answer.Problems, &controlv1.Problem{File: f.Name, Line: 1, Column: 2, Severity: "error", Message: "not a policy\x1b"})
			refuse = true
		case word == "degraded\n":
			answer.Problems = append(answer.Problems, &controlv1.Problem{File: f.Name, Line: 3, Column: 4, Severity: "degraded", Message: "a deny inside an allow"})
			degraded = true
		}
		info := fakePolicy()
		info.Degraded, info.Accepted = degraded, r.Msg.AcceptDegraded
		answer.Policies = append(answer.Policies, info)
	}
	if !refuse {
		answer.Generation = 5
	}
	if r.Msg.Replace {
		answer.Generation *= 10
	}
	return connect.NewResponse(answer), nil
}

func (*fakeDaemon) ListSessions(_ context.Context, r *connect.Request[controlv1.ListSessionsRequest]) (*connect.Response[controlv1.ListSessionsResponse], error) {
	answer := &controlv1.ListSessionsResponse{Sessions: []*controlv1.Session{{Id: "s-1", Agent: "spiffe://local/agent/reviewer", Task: "CHG-1",
		Started: fakeStart, Pid: 42, Command: []string{"sh", "-c", "echo\na"}, Processes: 2, Denied: 9, Tier: "full"}}}
	if r.Msg.All {
		answer.Sessions = append(answer.Sessions, &controlv1.Session{Id: "s-0", Agent: "spiffe://local/agent/reviewer", Started: fakeStart, Ended: fakeStart, Tier: "full"})
	}
	return connect.NewResponse(answer), nil
}

func (*fakeDaemon) StopSession(_ context.Context, r *connect.Request[controlv1.StopSessionRequest]) (*connect.Response[controlv1.StopSessionResponse], error) {
	if r.Msg.Id != "s-1" {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no session %q; `bailiff sessions list` lists them", r.Msg.Id))
	}
	return connect.NewResponse(&controlv1.StopSessionResponse{Killed: 2}), nil
}

func (*fakeDaemon) Status(context.Context, *connect.Request[controlv1.StatusRequest]) (*connect.Response[controlv1.StatusResponse], error) {
	return connect.NewResponse(&controlv1.StatusResponse{Version: "v1", Tier: "basic", Generation: 3, Sessions: 1, Policies: 1, Started: fakeStart,
		StateDirectory: "/var/lib/bailiff", Cgroup: "/sys/fs/cgroup",
		Probes: []*controlv1.Probe{{Name: "LSM programs", Result: "EPERM", Remedy: "boot with lsm=...,bpf"}, {Name: "cgroup programs", Ok: true, Result: "loaded"}},
		Maps:   []*controlv1.MapUse{{Name: "edges", Used: 10, Capacity: 200}}}), nil
}
