// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
)

// place is where a line stands.
type place struct {
	file   *source
	offset int64
	length int
}

// deliverLast visits the last o.Last selected events: from the newest file back
// it notes where they stand, so memory holds no more than their places.
func (r *reader) deliverLast(files []*source) error {
	var places []place
	for i := len(files) - 1; i >= 0; i-- {
		need := r.o.Last - len(places)
		if need <= 0 && i < len(files)-1 || !r.mayContain(files, i) {
			break
		}
		found, err := r.lastOf(files[i], need)
		if err != nil {
			return err
		}
		places = append(found, places...)
	}
	for _, p := range places {
		if err := r.deliverAt(p); err != nil {
			return err
		}
	}
	return nil
}

// lastOf finds the last n selected events of a file, in order.
func (r *reader) lastOf(s *source, n int) ([]place, error) {
	if n <= 0 {
		return nil, s.toEnd()
	}
	var ring []place
	next := 0
	all := r.o.Filter.empty()
	err := r.scan(s, func(line []byte, offset int64) error {
		if !all {
			if _, ok := r.selected(s, line, offset); !ok {
				return nil
			}
		}
		p := place{s, offset, len(line)}
		if len(ring) < n {
			ring = append(ring, p)
			return nil
		}
		ring[next] = p
		next = (next + 1) % n
		return nil
	})
	return slices.Concat(ring[next:], ring[:next]), err
}

// toEnd passes over the whole lines that are there.
func (s *source) toEnd() error {
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("examine the log: %w", err)
	}
	s.at, err = lastNewline(s.f, info.Size())
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

func (r *reader) deliverAt(p place) error {
	line := make([]byte, p.length)
	if _, err := p.file.f.ReadAt(line, p.offset); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return r.handle(p.file, line, p.offset)
}
