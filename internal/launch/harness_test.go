// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

// The test binary is re-executed as the parent, as the stub and as a probe,
// each on its first thread like the real command.
func init() { runtime.LockOSThread() }

const (
	parentMode = "__parent"
	stubMode   = "__confine"
	probeMode  = "__probe"
	shellMode  = "__shell"

	inheritedMode = "__inherited"
)

func TestMain(m *testing.M) {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case parentMode:
		beParent(os.Args[2])
	case stubMode:
		os.Exit(Confine(os.Args[2:]))
	case shellMode:
		os.Exit(beShell(os.Args[2:]))
	case inheritedMode:
		os.Exit(inherited())
	case probeMode:
		os.Exit(probe(os.Args[2:]))
	}
	// Under nohup, what is started here would ignore it too: what is caught it does not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	os.Exit(m.Run())
}

func beParent(options string) {
	o := Options{}
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o.Environ, o.Stderr = os.Environ(), os.Stderr
	status, err := Run(o)
	var failed *Error
	if errors.As(err, &failed) {
		fmt.Fprintln(os.Stderr, "bailiff:", failed)
		os.Exit(failed.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "not an *Error:", err)
		os.Exit(1)
	}
	status.Exit()
}

// daemon is an AdminService that labels nothing and answers as told.
type daemon struct {
	controlv1connect.UnimplementedAdminServiceHandler
	socket  string
	answer  *controlv1.LaunchResponse
	refuse  error
	meddle  func(pid int) // called in Launch, if set
	summary *controlv1.SessionSummaryResponse

	mu       sync.Mutex
	launches []launched
}

// launched is one Launch call and who made it.
type launched struct {
	request *controlv1.LaunchRequest
	peer    unix.Ucred
	uid     string // the real one, when the call arrived
}

type peerKey struct{}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{
		socket:  filepath.Join(t.TempDir(), "admin.sock"),
		answer:  &controlv1.LaunchResponse{Session: &controlv1.Session{Id: "s-1"}, Tier: "full"},
		summary: &controlv1.SessionSummaryResponse{},
	}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewAdminServiceHandler(d))
	srv := &http.Server{Handler: mux, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, peerOf(c))
	}}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return d
}

func peerOf(c net.Conn) unix.Ucred {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		panic(err)
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cred == nil {
		panic(fmt.Sprint("peer credentials: ", err))
	}
	return *cred
}

func (d *daemon) Launch(ctx context.Context, r *connect.Request[controlv1.LaunchRequest]) (*connect.Response[controlv1.LaunchResponse], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := launched{request: r.Msg, peer: ctx.Value(peerKey{}).(unix.Ucred)}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.peer.Pid))
	if _, uids, ok := strings.Cut(string(status), "\nUid:"); ok {
		l.uid = strings.Fields(uids)[0]
	}
	d.launches = append(d.launches, l)
	if d.meddle != nil {
		d.meddle(int(l.peer.Pid))
	}
	if d.refuse != nil {
		return nil, d.refuse
	}
	return connect.NewResponse(d.answer), nil
}

func (d *daemon) SessionSummary(_ context.Context, r *connect.Request[controlv1.SessionSummaryRequest]) (*connect.Response[controlv1.SessionSummaryResponse], error) {
	if r.Msg.GetId() != d.answer.GetSession().GetId() {
		return nil, connect.NewError(connect.CodeNotFound, errors.New("no such session"))
	}
	return connect.NewResponse(d.summary), nil
}

// last is the latest Launch call.
func (d *daemon) last(t *testing.T) launched {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.launches) == 0 {
		t.Fatal("no Launch call arrived")
	}
	return d.launches[len(d.launches)-1]
}

// parent makes the command that runs `bailiff run`.
func (d *daemon) parent(t *testing.T, o Options) *exec.Cmd {
	t.Helper()
	if o.AdminSocket == "" {
		o.AdminSocket = d.socket
	}
	if o.Agent == "" {
		o.Agent = "tester"
	}
	o.AgentSocket = "/run/bailiff/agent.sock"
	o.Executable, o.Args = "/proc/self/exe", []string{"bailiff", stubMode}
	options, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, parentMode, string(options))
	cmd.Env = append(os.Environ(), "SUDO_UID=") // whoever tests under sudo
	return cmd
}

// run runs it to its end.
func (d *daemon) run(t *testing.T, o Options) result {
	t.Helper()
	return finish(t, d.parent(t, o))
}

func (d *daemon) shell(t *testing.T, script string) result {
	t.Helper()
	return d.run(t, Options{Command: []string{"/bin/sh", "-c", script}})
}

type result struct {
	stdout, stderr string
	code           int            // -1 when a signal killed it
	signal         syscall.Signal // or 0
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{stdout: out.String(), stderr: errs.String(), code: cmd.ProcessState.ExitCode()}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.signal = ws.Signal()
	}
	return r
}

func wantContains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in:\n%s", p, text)
		}
	}
}
