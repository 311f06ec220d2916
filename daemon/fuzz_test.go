// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// fuzzed is a real daemon on the basic tier, in a cgroup of its own, behind a
// socket of its own.
type fuzzed struct {
	*Daemon
	client   *http.Client
	methods  []string // "/SERVICE/METHOD"
	panicked atomic.Pointer[string]
	base     candidate // what is in force before each try
}

// startFuzzed makes the daemon that a fuzzer's process asks.
func startFuzzed(f testing.TB) *fuzzed {
	f.Helper()
	kerneltest.RequireRoot(f)
	dir := f.TempDir()
	pins := filepath.Join(dir, "bpffs")
	if err := os.Mkdir(pins, 0o700); err != nil {
		f.Fatal(err)
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		f.Fatalf("mount bpffs: %v", err)
	}
	config := Defaults()
	config.StateDir, config.RunDir, config.PinDir = filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(pins, "bailiff")
	config.Cgroup, config.Metrics, config.Tier = fmt.Sprint("bailiff-fuzz-", os.Getpid()), "off", "basic"
	x := &fuzzed{}
	d, err := New(Options{Config: config, Version: "fuzz", Log: slog.New(slog.NewTextHandler(x, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		f.Fatalf("start: %v", err)
	}
	x.Daemon = d
	f.Cleanup(func() {
		closing := d.close()
		_, err := Remove(config)
		if err := errors.Join(closing, err, unix.Unmount(pins, unix.MNT_DETACH)); err != nil {
			f.Error(err)
		}
	})
	ended := sessionRecord{ID: "s-ended", Number: 1, Agent: "spiffe://local/agent/a", Started: time.Unix(1, 0)}
	d.sessions.add(&session{sessionRecord: ended, Ended: time.Unix(2, 0)})
	x.base, _ = d.compile(storedPolicies{})
	x.serve(f, dir)
	return x
}

// Write sees the daemon's own log: a handler that panicked says so there.
func (x *fuzzed) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("panicked")) {
		text := string(line)
		x.panicked.Store(&text)
	}
	return len(line), nil
}

func (x *fuzzed) serve(f testing.TB, dir string) {
	socket := filepath.Join(dir, "s")
	l, err := control.Listen(control.ListenOptions{Path: socket, Mode: 0o600, Group: -1, Log: x.log})
	if err != nil {
		f.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(controlv1connect.NewAdminServiceHandler(fuzzedAdmin{x.Daemon},
		append(control.HandlerOptions(control.MaxAdminMessage, x.log), connect.WithInterceptors(x.guard(), harmless()))...))
	mux.Handle(controlv1connect.NewAgentServiceHandler(agentService{x.Daemon},
		append(control.HandlerOptions(control.MaxAgentMessage, x.log), connect.WithInterceptors(harmless()))...))
	server := control.NewServer(l, mux, x.log)
	go func() { _ = server.Serve() }()
	f.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	x.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for _, method := range methods() {
		x.methods = append(x.methods, fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()))
	}
}

// methods lists those of all services, in the order of the proto file.
func methods() (list []protoreflect.MethodDescriptor) {
	services := controlv1.File_internal_control_v1_control_proto.Services()
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			list = append(list, services.Get(i).Methods().Get(j))
		}
	}
	return list
}

// harmless keeps requests from handlers that act upon processes: what those are
// sent is decoded all the same.
func harmless() connect.UnaryInterceptorFunc {
	deep := []string{
		"Launch", "ListSessions", "StopSession", "SessionSummary", "ApplyPolicies", "ListPolicies", "GetPolicy", "DeletePolicy", "Status", "Session",
	}
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if !slices.Contains(deep, filepath.Base(req.Spec().Procedure)) {
				return nil, connect.NewError(connect.CodeAborted, errors.New("not done by the fuzzer"))
			}
			return next(ctx, req)
		}
	}
}

// fuzzedAdmin confines nobody: its caller is the fuzzer itself.
type fuzzedAdmin struct{ *Daemon }

func (a fuzzedAdmin) Launch(ctx context.Context, req *connect.Request[controlv1.LaunchRequest]) (*connect.Response[controlv1.LaunchResponse], error) {
	if err := checkLaunch(req.Msg); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if len(a.policies.stored.Documents) > 0 {
		return nil, connect.NewError(connect.CodeAborted, errors.New("not done by the fuzzer"))
	}
	return a.Daemon.Launch(ctx, req)
}

// encodings are the ways to send a message; the last is none of them.
func encodings() []string {
	return []string{"application/proto", "application/json", "application/grpc", "application/grpc+json", "text/plain"}
}

// send posts a body and returns the answer's status and text.
func (x *fuzzed) send(method, encoding string, body []byte) (int, http.Header, []byte, error) {
	if strings.HasPrefix(encoding, "application/grpc") { // which puts a length before each message
		body = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
	}
	answer, err := x.client.Post("http://bailiff"+method, encoding, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Trailer, text, err
}

// sampleMessages are requests that get far.
func sampleMessages() map[string]proto.Message {
	text := "apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec:\n  subject: {spiffeID: a}\n  files:\n    - {path: \"/srv/**/.env\", allow: [read]}\n" +
		"---\napiVersion: bailiff.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\nspec:\n  subjects: [\"spiffe://local/*\"]\n  network:\n    - {deny: connect, cidr: 10.0.0.0/8}\n"
	return map[string]proto.Message{
		"Launch":         &controlv1.LaunchRequest{Agent: "a", Task: "t", Context: map[string]string{"k": "v"}, Command: []string{"sh"}, Kept: []string{`3 "/a"`}},
		"ListSessions":   &controlv1.ListSessionsRequest{All: true},
		"StopSession":    &controlv1.StopSessionRequest{Id: "s-ended"},
		"SessionSummary": &controlv1.SessionSummaryRequest{Id: "s-ended"},
		"ApplyPolicies":  &controlv1.ApplyPoliciesRequest{Files: []*controlv1.PolicyFile{{Name: "p.yaml", Content: []byte(text)}}, AcceptDegraded: true},
		"GetPolicy":      &controlv1.GetPolicyRequest{Name: "p"},
		"DeletePolicy":   &controlv1.DeletePolicyRequest{Name: "p"},
	}
}

// FuzzControl sends any bytes to any method of the control API, in each of its
// encodings, over a socket of the real daemon: it answers, what it answers is
// well formed, and no handler panics or finds the daemon in a state it can't be in.
func FuzzControl(f *testing.F) {
	samples := sampleMessages()
	for i, method := range methods() {
		body, text := []byte{}, []byte("{}")
		if m := samples[string(method.Name())]; m != nil {
			var err, err2 error
			body, err = proto.Marshal(m)
			text, err2 = protojson.Marshal(m)
			if err := errors.Join(err, err2); err != nil {
				f.Fatal(err)
			}
		}
		for encoding, body := range [][]byte{body, text, body, text, text} {
			f.Add(uint8(i), uint8(encoding), body)
		}
	}
	x := startFuzzed(f)
	f.Fuzz(func(t *testing.T, method, encoding uint8, body []byte) {
		name := x.methods[int(method)%len(x.methods)]
		kind := encodings()[int(encoding)%len(encodings())]
		status, trailer, answer, err := x.send(name, kind, body)
		if err != nil {
			t.Fatalf("%s %s: %v", name, kind, err)
		}
		if text := x.panicked.Load(); text != nil {
			t.Fatalf("%s %s: %s", name, kind, *text)
		}
		if code := trailer.Get("Grpc-Status"); code == "2" || code == "13" { // unknown, internal
			t.Fatalf("%s %s: %s: %s", name, kind, code, trailer.Get("Grpc-Message"))
		}
		if status != http.StatusOK && (kind == "application/proto" || kind == "application/json") {
			var refusal struct{ Code, Message string }
			if err := json.Unmarshal(answer, &refusal); err != nil || refusal.Message == "" || refusal.Code == "unknown" || refusal.Code == "internal" {
				t.Fatalf("%s %s: %d %q: %v", name, kind, status, answer, err)
			}
		}
		x.reset(t)
	})
}

// reset puts in force again what was before: nothing.
func (x *fuzzed) reset(t *testing.T) {
	if len(x.policies.stored.Documents) == 0 {
		return
	}
	x.policies.apply.Lock()
	defer x.policies.apply.Unlock()
	if err := x.put(x.base); err != nil {
		t.Fatal(err)
	}
}
