// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ServerOptions describe the server of /metrics, /healthz and /readyz.
type ServerOptions struct {
	Address  string       // host:port, such as 127.0.0.1:9464
	AnyHost  bool         // let Address be another than a loopback address: nothing here asks who scrapes
	Ready    func() error // nil: ready; what it says is told to anyone who asks
	Gatherer prometheus.Gatherer
}

// Server serves metrics.
type Server struct {
	http     *http.Server
	listener net.Listener
}

// Listen binds the address. Agents' names and habits are nobody else's business,
// so an address that others reach is refused unless AnyHost is set.
func Listen(o ServerOptions) (*Server, error) {
	if err := checkAddress(o); err != nil {
		return nil, fmt.Errorf("metrics address %q: %w", o.Address, err)
	}
	l, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w", err)
	}
	return &Server{listener: l, http: &http.Server{
		Handler: handler(o), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}}, nil
}

func checkAddress(o ServerOptions) error {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return fmt.Errorf("not host:port, such as 127.0.0.1:9464: %w", err)
	}
	if ip, err := netip.ParseAddr(host); o.AnyHost || err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	// A name is not looked up: what it means may change.
	return errors.New("not a loopback address; use 127.0.0.1 or [::1], or allow any address explicitly")
}

func handler(o ServerOptions) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if o.Ready != nil {
			if err := o.Ready(); err != nil {
				http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Addr is the address that is listened on, with its port.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until Shutdown, after which it returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// Shutdown waits for scrapes under way until ctx is done.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
		return fmt.Errorf("stop serving metrics: %w", err)
	}
	return nil
}
