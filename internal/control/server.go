// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
)

// The largest messages that are read, in bytes.
const (
	MaxAdminMessage = 64 << 20 // a set of policies
	MaxAgentMessage = 1 << 20
)

// HandlerOptions are what the handlers of either service are made with: a limit
// on the size of messages (a constant of this package), and a panic that ends
// the request instead of the daemon.
func HandlerOptions(maxMessage int, log *slog.Logger) []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithReadMaxBytes(maxMessage),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, value any) error {
			log.Error("a request handler panicked", "procedure", spec.Procedure, "panic", value, "stack", string(debug.Stack()))
			return connect.NewError(connect.CodeInternal, errors.New("bailiffd hit a bug in this request; its log has the details"))
		}),
	}
}

// Server serves one socket.
type Server struct {
	http     *http.Server
	listener *Listener
}

// NewServer makes a server whose requests carry their Peer. It owns l.
func NewServer(l *Listener, h http.Handler, log *slog.Logger) *Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &Server{listener: l, http: &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if own, ok := c.(*conn); ok {
				return WithPeer(ctx, own.peer)
			}
			return ctx
		},
	}}
}

// Serve answers requests until Shutdown, after which it returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.listener.o.Path, err)
	}
	return nil
}

// Shutdown removes the socket, lets the requests under way finish until ctx is
// done, and then cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
		return fmt.Errorf("stop serving %s: %w", s.listener.o.Path, err)
	}
	return nil
}
