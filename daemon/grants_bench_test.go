// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// admin returns a client of the daemon's own admin socket.
func (d *fuzzed) admin(b *testing.B) controlv1connect.AdminServiceClient {
	b.Helper()
	servers, err := d.listen()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range servers {
		go func() { _ = s.Serve() }()
		b.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket("admin.sock"))
	}}}
	return controlv1connect.NewAdminServiceClient(client, "http://bailiffd")
}

// BenchmarkGrants issues many grants to one session, one request each, and revokes
// them with one.
func BenchmarkGrants(b *testing.B) {
	d := startFuzzed(b)
	d.applyTo(b, "spiffe://local/agent/*")
	client, ctx := d.admin(b), context.Background()
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var issued, revoked time.Duration
			for b.Loop() {
				s, err := d.begin("spiffe://local/agent/a")
				if err != nil {
					b.Fatal(err)
				}
				began := time.Now()
				for i := range n {
					if _, err := client.IssueGrant(ctx, connect.NewRequest(&controlv1.IssueGrantRequest{
						Session: s.ID, Ttl: durationpb.New(time.Hour),
						Network: []*controlv1.NetworkAccess{{Address: fmt.Sprintf("10.1.%d.%d", i/256, i%256), Ports: []string{"443"}}},
					})); err != nil {
						b.Fatal(err)
					}
				}
				issued += time.Since(began)
				began = time.Now()
				if _, err := client.RevokeGrants(ctx, connect.NewRequest(&controlv1.RevokeGrantsRequest{Session: s.ID})); err != nil {
					b.Fatal(err)
				}
				revoked += time.Since(began)
				d.endSession(s)
			}
			b.ReportMetric(float64(issued.Microseconds())/float64(b.N*n), "µs/issue")
			b.ReportMetric(float64(revoked.Microseconds())/float64(b.N*n), "µs/revoke")
		})
	}
}
