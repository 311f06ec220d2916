// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const budgetSize = int(unsafe.Sizeof(enforcerBudget{}))

// mapBudgets shares the memory of the agents' budgets with the programs.
func mapBudgets(m *ebpf.Map) ([]byte, error) {
	budgets, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries())*budgetSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the agents' budgets: %w", err)
	}
	return budgets, nil
}

// settle acknowledges what is committed while nothing new comes.
func (r *Reader) settle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.acknowledge(r.ring.consumer.Load())
	return nil
}

// acknowledge lets agents tell more, where everything that was told until a
// position has been read: what an agent may have in the ring is bounded, and now
// nobody has anything there.
func (r *Reader) acknowledge(position uint64) {
	for at := 0; at < len(r.budgets); at += budgetSize {
		b := (*enforcerBudget)(unsafe.Pointer(&r.budgets[at]))
		told := atomic.LoadUint64(&b.Told)
		if told == b.Read {
			continue
		}
		if r.ring.producer.Load() != position {
			return // somebody told something meanwhile, maybe this agent
		}
		atomic.StoreUint64(&b.Read, told)
	}
}
