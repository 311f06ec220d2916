// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
)

// folds remembers what acts that are being repeated were: the kernel tells of the
// last repeats without saying it again. It is for one goroutine.
type folds struct {
	young, old map[uint64]audit.Event
}

// maxFolds bounds each generation of them; the kernel has room for as many.
const maxFolds = 1 << 13

// complete fills in what an event does not say again, and remembers what one
// says for those to come.
func (f *folds) complete(ev *bpf.Event, out *audit.Event) {
	if ev.Fold == 0 {
		return
	}
	before, known := f.young[ev.Fold]
	if !known {
		before, known = f.old[ev.Fold]
	}
	if ev.PID == 0 && known {
		out.Object, out.Target, out.Executable = before.Object, before.Target, before.Executable
		out.PID, out.TID, out.UID, out.Ancestors = before.PID, before.TID, before.UID, before.Ancestors
	}
	if len(f.young) >= maxFolds {
		f.young, f.old = nil, f.young
	}
	if f.young == nil {
		f.young = map[uint64]audit.Event{}
	}
	f.young[ev.Fold] = *out
}
