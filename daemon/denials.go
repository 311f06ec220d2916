// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"slices"
	"sync"

	"bailiff.dev/bailiff/policy"
)

// denial is one kind of thing that a session was denied.
type denial struct {
	operation, object, rule string
	advice                  policy.Advice
}

// denials counts what a session was denied. How often is always exact; of what,
// up to maxDenials kinds and maxDenialBytes of text, which the session chooses.
type denials struct {
	mu    sync.Mutex
	count uint64
	kinds map[denial]uint64
	bytes int
}

const (
	maxDenials     = 1000
	maxDenialBytes = 512 << 10
	oldDenialBytes = 8 << 10 // what stays of a session that ended a while ago
)

// size is about what a kind takes in memory.
func (x *denial) size() int {
	const fixed = 128
	return fixed + len(x.operation) + len(x.object) + len(x.rule) + len(x.advice.Section) + len(x.advice.Line) + len(x.advice.Reason)
}

// add counts what was denied so many times.
func (d *denials) add(x denial, times uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count += times
	if d.kinds == nil {
		d.kinds = map[denial]uint64{}
	}
	if d.kinds[x] > 0 {
		d.kinds[x] += times
	} else if size := x.size(); len(d.kinds) < maxDenials && d.bytes+size <= maxDenialBytes {
		d.kinds[x], d.bytes = times, d.bytes+size
	}
}

// trim forgets the least frequent kinds, until the rest takes no more than some bytes.
func (d *denials) trim(limit int) {
	list := d.list()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kinds, d.bytes = map[denial]uint64{}, 0
	for _, x := range list {
		size := x.size()
		if d.bytes+size > limit {
			return
		}
		d.kinds[x.denial], d.bytes = x.count, d.bytes+size
	}
}

func (d *denials) total() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

type countedDenial struct {
	denial
	count uint64
}

// list returns the kinds, most frequent first.
func (d *denials) list() []countedDenial {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []countedDenial
	for kind, n := range d.kinds {
		list = append(list, countedDenial{kind, n})
	}
	slices.SortFunc(list, func(a, b countedDenial) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.operation, b.operation), cmp.Compare(a.object, b.object))
	})
	return list
}
