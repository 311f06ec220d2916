// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

var quiet = slog.New(slog.DiscardHandler)

// admin answers Status with who asks, and the rest by what the test put in.
type admin struct {
	controlv1connect.UnimplementedAdminServiceHandler
	t *testing.T
}

func (a *admin) Status(ctx context.Context, _ *connect.Request[controlv1.StatusRequest]) (*connect.Response[controlv1.StatusResponse], error) {
	p, ok := PeerFrom(ctx)
	if !ok {
		return nil, errors.New("no peer")
	}
	f, err := p.PIDFD()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return nil, err
	}
	if !strings.Contains(string(info), fmt.Sprintf("Pid:\t%d\n", p.PID)) {
		return nil, fmt.Errorf("pidfd is of another process: %s", info)
	}
	return connect.NewResponse(&controlv1.StatusResponse{Version: fmt.Sprintf("%d %d %d", p.PID, p.UID, p.GID)}), nil
}

func (a *admin) StopSession(context.Context, *connect.Request[controlv1.StopSessionRequest]) (*connect.Response[controlv1.StopSessionResponse], error) {
	panic("bug")
}

func (a *admin) ApplyPolicies(_ context.Context, r *connect.Request[controlv1.ApplyPoliciesRequest]) (*connect.Response[controlv1.ApplyPoliciesResponse], error) {
	return connect.NewResponse(&controlv1.ApplyPoliciesResponse{Generation: uint64(len(r.Msg.Files[0].Content))}), nil
}

func (a *admin) GetPolicy(_ context.Context, r *connect.Request[controlv1.GetPolicyRequest]) (*connect.Response[controlv1.GetPolicyResponse], error) {
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no policy %q", r.Msg.Name))
}

func serve(t *testing.T, o ListenOptions) *Server {
	t.Helper()
	o.Group = -1
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewAdminServiceHandler(&admin{t: t}, HandlerOptions(MaxAdminMessage, quiet)...))
	s := NewServer(l, mux, quiet)
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestPeerReachesHandlers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deeper", "admin.sock")
	serve(t, ListenOptions{Path: path, Mode: 0o660})
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	r, err := NewAdminClient(path).Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d %d %d", os.Getpid(), os.Getuid(), os.Getgid()); r.Msg.Version != want {
		t.Errorf("peer %s, want %s", r.Msg.Version, want)
	}
}

func TestJSONAndHTTP2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, ListenOptions{Path: path})
	for _, http2 := range []bool{false, true} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		c := &http.Client{Transport: &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
		r, err := c.Post("http://x/bailiff.control.v1.AdminService/Status", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		c.CloseIdleConnections()
		if r.StatusCode != 200 || !bytes.Contains(body, []byte(`"version":"`)) || (r.ProtoMajor == 2) != http2 {
			t.Errorf("HTTP/2 %v: %s %s %s", http2, r.Proto, r.Status, body)
		}
	}
}

func TestLargePolicyPassesAndLargerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, ListenOptions{Path: path})
	send := func(size int) error {
		_, err := NewAdminClient(path).ApplyPolicies(context.Background(), connect.NewRequest(&controlv1.ApplyPoliciesRequest{
			Files: []*controlv1.PolicyFile{{Name: "p", Content: make([]byte, size)}}}))
		return err
	}
	if err := send(MaxAdminMessage - 100); err != nil {
		t.Errorf("the largest: %v", err)
	}
	if err := send(MaxAdminMessage + 1); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("too large: %v", err)
	}
}

func TestFormatErrorOfAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, ListenOptions{Path: path})
	client, ctx := NewAdminClient(path), context.Background()
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, notFound := client.GetPolicy(ctx, connect.NewRequest(&controlv1.GetPolicyRequest{Name: "x"}))
	_, unknown := client.ListPolicies(ctx, connect.NewRequest(&controlv1.ListPoliciesRequest{}))
	_, panicked := client.StopSession(ctx, connect.NewRequest(&controlv1.StopSessionRequest{}))
	_, interrupted := client.Status(canceled, connect.NewRequest(&controlv1.StatusRequest{}))
	for _, c := range []struct {
		err  error
		want string
	}{
		{notFound, `there is no policy "x"`},
		{unknown, "bailiffd does not know this request: bailiff and bailiffd are of different versions"},
		{panicked, "bailiffd could not do it: bailiffd hit a bug"},
		{interrupted, "interrupted before bailiffd answered"},
		{fmt.Errorf("apply: %w", &DialError{"/x", unix.ENOENT}), "bailiffd is not running, or its socket is elsewhere: there is no /x"},
		{errors.New("plain"), "plain"},
	} {
		if got := FormatError(c.err); !strings.HasPrefix(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%v\n got %s\nwant %s...", c.err, got, c.want)
		}
	}
}

func TestDialErrors(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "start it with `systemctl start bailiffd` or pass --socket",
		stale:                      "nobody answers on " + stale,
		filepath.Join(dir, strings.Repeat("x", 200)): "longer than 107 bytes",
	} {
		_, err := NewAdminClient(path).Status(context.Background(), connect.NewRequest(&controlv1.StatusRequest{}))
		if got := FormatError(err); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	denied := (&DialError{stale, unix.EACCES}).Error()
	if !strings.Contains(denied, "you may not use") || !strings.Contains(denied, "sudo") {
		t.Error(denied)
	}
}

func TestListenReplacesOnlyTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	serve(t, ListenOptions{Path: path})
	if _, err := Listen(ListenOptions{Path: path, Group: -1}); !errors.Is(err, ErrInUse) {
		t.Errorf("second daemon: %v", err)
	}
	file := filepath.Join(t.TempDir(), "f")
	os.WriteFile(file, []byte("x"), 0o600)
	if _, err := Listen(ListenOptions{Path: file, Group: -1}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "x" {
		t.Error("the file was changed")
	}
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(ListenOptions{Path: path, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	second, err := Listen(ListenOptions{Path: path, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second's socket: %v", err)
	}
	second.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("its own socket stayed")
	}
}

// The way of kernels before 6.5, on whatever kernel runs the test.
func TestOpenPIDFD(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	self := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	fd, err := openPIDFD(pair[0], self)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)

	if err := samePeer(pair[0], self, 0); err == nil || !strings.Contains(err.Error(), "not the one that connected") {
		t.Errorf("a process younger than the connection: %v", err)
	}
	if os.Getuid() == 0 {
		testChangedUser(t, pair[0])
	}
	gone := *self
	gone.Pid = 1 << 22
	if _, err := openPIDFD(pair[0], &gone); err == nil {
		t.Error("a process that is none")
	}
	unix.Close(pair[1])
	if _, err := openPIDFD(pair[0], self); err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("nobody at the other end: %v", err)
	}
}

// testChangedUser: root's process may be another user's by the time it is looked at.
func testChangedUser(t *testing.T, fd int) {
	const nobody = 65534
	c := exec.Command("sleep", "60")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	for uid, want := range map[uint32]bool{0: true, nobody: true, nobody - 1: false} {
		pidfd, err := openPIDFD(fd, &unix.Ucred{Pid: int32(c.Process.Pid), Uid: uid, Gid: uid})
		if (err == nil) != want {
			t.Errorf("connected as %d, is nobody's now: %v", uid, err)
		}
		if err == nil {
			unix.Close(pidfd)
		}
	}
}

func TestConnectionsPerUser(t *testing.T) {
	l := &Listener{o: ListenOptions{PerUser: 2}, open: map[uint32]int{}}
	got := []bool{l.enter(5), l.enter(5), l.enter(5), l.enter(6), l.enter(0), l.enter(0), l.enter(0)}
	if want := []bool{true, true, false, true, true, true, true}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	l.leave(5)
	if !l.enter(5) {
		t.Error("a place that was left is not given again")
	}
}

func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	var log bytes.Buffer
	l := &Listener{o: ListenOptions{Path: "/s", Log: slog.New(slog.NewTextHandler(&log, nil))}}
	for range 100 {
		c, other := net.Pipe()
		l.refuse(c, errors.New("too many"))
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("the connection is open: %v", err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || l.refused != 99 {
		t.Errorf("%d lines for 100 refusals, %d to tell", n, l.refused)
	}
}
