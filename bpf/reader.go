// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Reader reads verdicts in the order they were made. What was read stays in the
// ring until it is committed: who is killed in between finds it there again. Read
// is for one goroutine at a time, the rest for any.
type Reader struct {
	source  *ebpf.Map
	ring    *ring
	bell    *bell
	id      string
	next    uint64        // position of what is read next
	told    uint64        // where the last event ends that was returned, and not skipped
	before  uint64        // the same before that one
	flushTo atomic.Uint64 // one more than the position that Flush waits for; 0: none does
	stopped atomic.Bool
	mu      sync.Mutex // Commit against Close
	budgets []byte     // of agents, shared with the programs
	closed  bool
}

// NewReader returns the reader of the enforcer's events, from the first that is
// not committed. There should be one.
func (e *Enforcer) NewReader() (r *Reader, err error) {
	r = &Reader{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the ring of events: %w", err), r.release())
			r = nil
		}
	}()
	if r.source, err = e.maps[enforcerMapEvents].Clone(); err != nil {
		return r, err
	}
	if r.budgets, err = mapBudgets(e.maps[enforcerMapBudgets]); err != nil {
		return r, err
	}
	if r.id, err = ringID(r.source); err != nil {
		return r, err
	}
	if r.ring, err = mapRing(r.source); err != nil {
		return r, err
	}
	if r.bell, err = hang(r.source); err != nil {
		return r, err
	}
	r.next = r.ring.consumer.Load()
	return r, nil
}

// ringID names a ring: no other of this host, in this boot or another, has its
// name. The kernel doesn't use the number of a map again until it has used all.
func ringID(m *ebpf.Map) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	info, err := m.Info()
	if err != nil {
		return "", err
	}
	number, ok := info.ID()
	if !ok {
		return "", errors.New("the kernel does not number its maps")
	}
	digits := strings.ReplaceAll(strings.TrimSpace(string(boot)), "-", "")
	return fmt.Sprintf("%.16s.%d", digits, number), nil
}

// Ring returns the name of the ring that Event.Position is a position of. It stays
// the same as long as the programs are adopted.
func (r *Reader) Ring() string { return r.id }

// Size returns how many bytes the ring holds.
func (r *Reader) Size() int { return int(r.source.MaxEntries()) }

// Resume passes over what ends at or before a position, which was committed or
// should have been, and returns how many records wait after it. It is called
// before the first Read.
func (r *Reader) Resume(position uint64) (waiting int, err error) {
	if producer := r.ring.producer.Load(); position > producer {
		return 0, fmt.Errorf("resume at position %d: the ring of events has got no further than %d", position, producer)
	}
	if err := r.Commit(position); err != nil {
		return 0, err
	}
	r.next = r.ring.consumer.Load()
	for at := r.next; ; {
		sample, end, ok := r.ring.at(at)
		if !ok {
			return waiting, nil
		}
		if sample != nil {
			waiting++
		}
		at = end
	}
}

// Commit lets the kernel write over every record that ends at or before a
// position. A later Reader starts behind it.
func (r *Reader) Commit(position uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("commit to the ring of events: %w", os.ErrClosed)
	}
	if position > r.ring.consumer.Load() {
		r.acknowledge(position)
		r.ring.consumer.Store(position)
	}
	return nil
}

// Skip says that nobody will commit the event that Read just returned. It is
// committed here, as soon as all before it are: if not now, by a later Skip or
// with a later event. It is for the goroutine that reads.
func (r *Reader) Skip(ev *Event) error {
	r.told = r.before
	if r.told > r.ring.consumer.Load() {
		return nil
	}
	return r.Commit(ev.Position)
}

// ErrFlushed is what Read returns once after a Flush, when it has returned every
// event that was told before.
var ErrFlushed = errors.New("read what was told before the flush")

// Read waits for an event until the deadline; os.ErrDeadlineExceeded,
// os.ErrClosed and ErrFlushed say that there is none.
func (r *Reader) Read(deadline time.Time) (*Event, error) {
	for {
		if r.stopped.Load() {
			return nil, os.ErrClosed
		}
		if to := r.flushTo.Load(); to != 0 && r.next+1 >= to && r.flushTo.CompareAndSwap(to, 0) {
			return nil, ErrFlushed
		}
		sample, end, ok := r.ring.at(r.next)
		if ok {
			start := r.next
			r.next = end
			if sample != nil {
				return r.decode(sample)
			}
			if start == r.ring.consumer.Load() { // nobody will commit what nobody saw
				if err := r.Commit(end); err != nil {
					return nil, err
				}
			}
			continue
		}
		if r.next == r.ring.consumer.Load() {
			if err := r.settle(); err != nil {
				return nil, err
			}
		}
		if err := r.wait(deadline); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) decode(sample []byte) (*Event, error) {
	ev, err := decode(sample)
	if ev != nil {
		ev.Position = r.next
		r.before, r.told = r.told, r.next
	}
	return ev, err
}

// lookEvery is how long an event may wait that the kernel wakes nobody for: see
// wake in event.bpf.h.
const lookEvery = 100 * time.Millisecond

func (r *Reader) wait(deadline time.Time) error {
	limit := lookEvery
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		limit = min(limit, left+time.Millisecond)
	}
	if err := r.bell.wait(int(limit.Milliseconds())); err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	return nil
}

// Flush makes Read return ErrFlushed after what has been told by now. It returns
// an error after Stop.
func (r *Reader) Flush() error {
	if r.stopped.Load() {
		return os.ErrClosed
	}
	r.flushTo.Store(r.ring.producer.Load() + 1)
	return r.bell.ring()
}

// Stop ends a Read that waits, and every later one. What was read can still be
// committed.
func (r *Reader) Stop() error {
	if r.stopped.Swap(true) {
		return nil
	}
	return r.bell.ring()
}

// Close lets go of the ring. No Read may be running: see Stop.
func (r *Reader) Close() error {
	r.stopped.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return r.release()
}

func (r *Reader) release() error {
	var errs []error
	if r.ring != nil {
		errs = append(errs, r.ring.unmap())
	}
	if r.budgets != nil {
		errs = append(errs, unix.Munmap(r.budgets))
	}
	if r.bell != nil {
		errs = append(errs, r.bell.close())
	}
	if r.source != nil {
		errs = append(errs, r.source.Close())
	}
	return errors.Join(errs...)
}
