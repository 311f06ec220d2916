// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

// launchTimeout bounds how long the daemon may take to label and answer.
const launchTimeout = 30 * time.Second

// dial connects to the daemon. The peer credentials the daemon sees are those
// of this moment.
func dial(ctx context.Context, socket string) (net.Conn, *Error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, failure(ExitFailed, "connect to bailiffd at %s: %v: start it with `systemctl start bailiffd`, or pass --socket", socket, rootCause(err))
	case errors.Is(err, os.ErrPermission):
		return nil, failure(ExitFailed, "connect to bailiffd at %s: %v: use sudo, or become a member of the group that owns the socket", socket, rootCause(err))
	}
	return nil, failure(ExitFailed, "connect to bailiffd at %s: %v: check the socket and `bailiff doctor`", socket, rootCause(err))
}

// client speaks over conn alone: a second connection would be another peer.
func client(conn net.Conn) controlv1connect.AdminServiceClient {
	unused := make(chan net.Conn, 1)
	unused <- conn
	transport := &http.Transport{
		DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-unused:
				return c, nil
			default:
				return nil, errors.New("the connection to bailiffd was closed")
			}
		},
	}
	return controlv1connect.NewAdminServiceClient(&http.Client{Transport: transport}, "http://bailiffd")
}

// refusal turns an answer of the daemon into what the user reads.
func refusal(agent string, err error) *Error {
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return failure(ExitFailed, "launch %s: %v: see the log of bailiffd", agent, err)
	}
	switch answer.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return failure(ExitFailed, "launch %s: bailiffd does not answer: %s: see its log, then try again", agent, answer.Message())
	case connect.CodeUnimplemented:
		return failure(ExitFailed, "launch %s: bailiffd does not know this request: %s: install bailiff and bailiffd of one version", agent, answer.Message())
	}
	return failure(ExitFailed, "launch %s: bailiffd refused: %s", agent, answer.Message())
}
