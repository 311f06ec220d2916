// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkIssue gives one session many grants, and takes them away.
func BenchmarkIssue(b *testing.B) {
	k, err := loadKernel(b)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := k.remove(); err != nil {
			b.Error(err)
		}
	})
	session := Session{ID: 1 << 32, Cgroup: 1 << 40, Agent: 1}
	if err := k.AddSession(session); err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var issued, forgotten time.Duration
			for b.Loop() {
				var numbers []uint32
				began := time.Now()
				for i := range n {
					address := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
					number, err := k.Issue(Grant{
						Session: session.ID, Cgroup: session.Cgroup, Deadline: after(time.Hour),
						Network: []GrantNetwork{{Prefix: netip.PrefixFrom(address, 32), Protocol: unix.IPPROTO_TCP, Ports: []uint16{443}}},
					})
					if err != nil {
						b.Fatal(err)
					}
					numbers = append(numbers, number)
				}
				issued += time.Since(began)
				began = time.Now()
				for _, number := range numbers {
					if err := errors.Join(k.Revoke(number), k.Forget(number)); err != nil {
						b.Fatal(err)
					}
				}
				forgotten += time.Since(began)
			}
			b.ReportMetric(float64(issued.Microseconds())/float64(b.N*n), "µs/issue")
			b.ReportMetric(float64(forgotten.Microseconds())/float64(b.N*n), "µs/forget")
		})
	}
}
