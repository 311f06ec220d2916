// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"connectrpc.com/connect"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

// asProgram makes this test binary be the program: `bailiff run` starts itself
// again, and that must work the way main is started.
const asProgram = "BAILIFF_TEST_AS_PROGRAM"

func init() {
	if os.Getenv(asProgram) != "" {
		main()
	}
}

// launchService admits everything and denies one thing.
type launchService struct {
	controlv1connect.UnimplementedAdminServiceHandler
}

func (launchService) Launch(context.Context, *connect.Request[controlv1.LaunchRequest]) (*connect.Response[controlv1.LaunchResponse], error) {
	return connect.NewResponse(&controlv1.LaunchResponse{
		Session: &controlv1.Session{Id: "s-7"}, Tier: "full", DropEnvironment: []string{asProgram}}), nil
}

func (launchService) SessionSummary(context.Context, *connect.Request[controlv1.SessionSummaryRequest]) (*connect.Response[controlv1.SessionSummaryResponse], error) {
	return connect.NewResponse(&controlv1.SessionSummaryResponse{
		Denials: []*controlv1.Denial{{Operation: "read", Object: "/secret", Count: 3, Advice: "files: [{path: /secret, allow: [read]}]"}}}), nil
}

func TestRunAsAProgram(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewAdminServiceHandler(launchService{}))
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "--socket", socket, "run", "--agent", "a", "--keep-fd", "4", "--",
		"sh", "-c", "echo $BAILIFF_SESSION $BAILIFF_AGENT_SOCKET; cat <&4; exit 9")
	cmd.Env = append(os.Environ(), asProgram+"=1", "SUDO_UID=", "BAILIFF_AGENT_SOCKET=")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("kept\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	cmd.ExtraFiles = []*os.File{nil, kept}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if want := "s-7 " + filepath.Dir(socket) + "/agent.sock\nkept\n"; cmd.ProcessState.ExitCode() != 9 || out.String() != want {
		t.Errorf("%v, printed %q, want %q\n%s", err, out.String(), want, errs.String())
	}
	const summary = "bailiff: denied in session s-7:\n  read  /secret (3 times)\nbailiff: policy lines that would allow it:\n  files: [{path: /secret, allow: [read]}]\n"
	if errs.String() != summary {
		t.Errorf("got %q\nwant %q", errs.String(), summary)
	}
}
