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
// up to maxDenials kinds.
type denials struct {
	mu    sync.Mutex
	count uint64
	kinds map[denial]uint64
}

const maxDenials = 1000

func (d *denials) add(x denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	if d.kinds == nil {
		d.kinds = map[denial]uint64{}
	}
	if _, ok := d.kinds[x]; ok || len(d.kinds) < maxDenials {
		d.kinds[x]++
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
