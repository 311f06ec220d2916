// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
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

// forget makes a number one that nobody has told anything under; nobody does.
func (r *Reader) forget(number uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("clear the budget of agent %d: %w", number, os.ErrClosed)
	}
	*(*enforcerBudget)(unsafe.Pointer(&r.budgets[int(number)*budgetSize])) = enforcerBudget{}
	return nil
}

// waitingAgents returns the numbers of those who have events in the ring that are
// not committed.
func (r *Reader) waitingAgents() (map[uint32]bool, error) {
	r.mu.Lock() // nothing is committed meanwhile, so nothing is written over
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("look for events that wait: %w", os.ErrClosed)
	}
	agents, until := map[uint32]bool{}, time.Now().Add(time.Second)
	for at := r.ring.consumer.Load(); at < r.ring.producer.Load(); {
		sample, end, ok := r.ring.at(at)
		if !ok { // whoever writes it can be at it since before
			if time.Now().After(until) {
				return nil, errors.New("look for events that wait: one of them is never done")
			}
			time.Sleep(time.Millisecond)
			continue
		}
		if offset := int(unsafe.Offsetof(enforcerEvent{}.Agent)); len(sample) >= offset+4 {
			agents[binary.NativeEndian.Uint32(sample[offset:])] = true
		}
		at = end
	}
	return agents, nil
}
