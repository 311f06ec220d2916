// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

// Where the sockets are unless the configuration says otherwise.
const (
	AdminSocket = "/run/bailiff/admin.sock"
	AgentSocket = "/run/bailiff/agent.sock"
)

// NewAdminClient returns a client of the admin socket at path. It connects with
// its first call; errors are for FormatError.
func NewAdminClient(path string) controlv1connect.AdminServiceClient {
	return controlv1connect.NewAdminServiceClient(httpClient(path), baseURL, connect.WithReadMaxBytes(MaxAdminMessage))
}

// NewAgentClient is NewAdminClient for the agent socket.
func NewAgentClient(path string) controlv1connect.AgentServiceClient {
	return controlv1connect.NewAgentServiceClient(httpClient(path), baseURL, connect.WithReadMaxBytes(MaxAgentMessage))
}

// baseURL has the host that a Unix socket's requests carry; nobody reads it.
const baseURL = "http://bailiffd"

func httpClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
			if err != nil {
				return nil, &DialError{Path: path, Err: err}
			}
			return c, nil
		},
		DisableCompression:    true,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: 2 * time.Minute,
	}}
}

// DialError is a daemon that could not be reached. Its text says why and what to do.
type DialError struct {
	Path string // of the socket
	Err  error
}

func (e *DialError) Unwrap() error { return e.Err }

func (e *DialError) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("bailiffd is not running, or its socket is elsewhere: there is no %s; start it with `systemctl start bailiffd` or pass --socket", e.Path)
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return fmt.Sprintf("bailiffd is not running: nobody answers on %s; start it with `systemctl start bailiffd`", e.Path)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("you may not use %s: %s", e.Path, permissionAdvice(e.Path))
	case errors.Is(e.Err, syscall.EINVAL):
		return fmt.Sprintf("%s cannot be a socket: its path is empty or longer than 107 bytes; pass --socket", e.Path)
	}
	var op *net.OpError
	if errors.As(e.Err, &op) {
		return fmt.Sprintf("connect to bailiffd on %s: %v; check that it is running with `systemctl status bailiffd`", e.Path, op.Err)
	}
	return fmt.Sprintf("connect to bailiffd on %s: %v; check that it is running with `systemctl status bailiffd`", e.Path, e.Err)
}

// permissionAdvice names the group that may, as far as it can be seen.
func permissionAdvice(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		info, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return "run this as root, or with sudo"
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return "only root may; run this with sudo"
	}
	name := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(name); err == nil {
		name = g.Name
	}
	return fmt.Sprintf("you are not in the group %s; run this with sudo, or have root run `usermod -aG %s $USER` and log in again", name, name)
}

// FormatError says in one sentence what went wrong with a call. Text that came
// from the daemon is not escaped.
func FormatError(err error) string {
	var dial *DialError
	if errors.As(err, &dial) {
		return dial.Error()
	}
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return err.Error()
	}
	if connect.IsWireError(err) || answer.Code() == connect.CodeUnimplemented {
		return formatAnswer(answer)
	}
	switch answer.Code() {
	case connect.CodeCanceled:
		return "interrupted before bailiffd answered"
	case connect.CodeDeadlineExceeded:
		return "bailiffd did not answer in time; see `journalctl -u bailiffd`"
	case connect.CodeResourceExhausted:
		return "the answer of bailiffd is too large: " + answer.Message()
	}
	return fmt.Sprintf("the connection to bailiffd broke: %s; see `journalctl -u bailiffd`", answer.Message())
}

// formatAnswer is for what the daemon itself answered: its messages are whole
// sentences, so only the codes that lack one get words of their own.
func formatAnswer(e *connect.Error) string {
	switch e.Code() {
	case connect.CodeUnimplemented:
		return "bailiffd does not know this request: bailiff and bailiffd are of different versions; upgrade the older one (`bailiff version`, `bailiffd --version`)"
	case connect.CodeResourceExhausted:
		return "bailiffd refused the request: " + e.Message()
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return "not allowed: " + e.Message()
	case connect.CodeUnknown, connect.CodeInternal:
		return "bailiffd could not do it: " + e.Message()
	}
	return e.Message()
}
