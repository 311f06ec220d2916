// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
)

// Stage says where on its way an event was lost.
type Stage string

// The stages, in the order an event passes them.
const (
	InKernel Stage = "kernel" // the ring buffer was full
	InQueue  Stage = "queue"  // the writer's queue was full
	OnWrite  Stage = "write"  // the disk refused it
)

// Loss is a number of events of one agent that are not in the log.
type Loss struct {
	Agent string // SPIFFE ID; empty for events that belong to none
	Stage Stage
	Count uint64
}

type lossKey struct {
	agent string
	stage Stage
}

// losses counts what was lost: in total, and what the log does not tell yet.
type losses struct {
	mu     sync.Mutex
	total  map[lossKey]uint64
	untold map[lossKey]uint64
}

func newLosses() *losses {
	return &losses{total: map[lossKey]uint64{}, untold: map[lossKey]uint64{}}
}

func (l *losses) add(agent string, stage Stage, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := lossKey{agent, stage}
	l.total[k] += n
	l.untold[k] += n
}

// told takes back what the log now tells.
func (l *losses) told(x Loss) {
	if x.Count == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := lossKey{x.Agent, x.Stage}
	if l.untold[k] -= x.Count; l.untold[k] == 0 {
		delete(l.untold, k)
	}
}

func (l *losses) pending() []Loss { return l.list(l.untold) }
func (l *losses) all() []Loss     { return l.list(l.total) }

// list is sorted by agent and stage.
func (l *losses) list(m map[lossKey]uint64) []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Loss
	for k, n := range m {
		list = append(list, Loss{k.agent, k.stage, n})
	}
	slices.SortFunc(list, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Stage, b.Stage))
	})
	return list
}

// LostInKernel returns how many events of its agent a line says were lost in the
// kernel; ok is false where it says something else.
func (ev *Event) LostInKernel() (n uint64, ok bool) {
	if ev.Message != lossMessage || ev.Fields["stage"] != string(InKernel) {
		return 0, false
	}
	n, err := strconv.ParseUint(ev.Fields["count"], 10, 64)
	return n, err == nil
}

// lossMessage is that of lines that tell of losses.
const lossMessage = "events were lost"

func sum(list []Loss) (n uint64) {
	for _, x := range list {
		n += x.Count
	}
	return n
}
