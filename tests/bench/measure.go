// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// part is a row with what it measures here, and what it found.
type part struct {
	row
	samples []sample
	figures []figure
	rounds  []times
}

// measure takes all figures of the rows wanted that can be taken here.
func measure(ctx context.Context, o options, stderr io.Writer) (list []result, err error) {
	p, err := here()
	if err != nil {
		return nil, err
	}
	chosen := choose(o.rows, p, stderr)
	if len(chosen) == 0 {
		return nil, nil
	}
	f, err := newFixture(p, o.policy)
	defer func() { err = errors.Join(err, f.close()) }()
	if err != nil {
		return nil, err
	}
	for _, c := range chosen {
		if c.samples, c.figures, err = c.make(f); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		f.want(c.samples)
	}
	if err := f.start(); err != nil {
		return nil, err
	}
	for round := range o.rounds + 1 {
		fmt.Fprintf(stderr, "bench: %s: round %d of %d\n", p, round, o.rounds)
		if err := f.round(ctx, chosen, round > 0); err != nil {
			return nil, err
		}
	}
	if d := f.kernel.denied; d.n > 0 {
		fmt.Fprintf(stderr, "bench: %d operations of the workers were denied, such as %s\n", d.n, d.last)
	}
	return summarize(chosen, p), nil
}

// choose returns the rows that can be measured here, and says which can't.
func choose(names []string, p place, stderr io.Writer) (chosen []*part) {
	for _, r := range rows() {
		if len(names) > 0 && !slices.Contains(names, r.name) {
			continue
		}
		if r.full && !p.Full {
			fmt.Fprintf(stderr, "bench: %s: not on %s: %v\n", r.name, p, p.reason)
			continue
		}
		chosen = append(chosen, &part{row: r})
	}
	return chosen
}

// round takes each sample on the way there and on the way back.
func (f *fixture) round(ctx context.Context, parts []*part, counts bool) error {
	taken := make([]times, len(parts))
	for i := range taken {
		taken[i] = times{}
	}
	states := []state{nothing, empty, enforced, enforced, empty, nothing}
	for at, s := range states {
		if !slices.ContainsFunc(parts, func(p *part) bool { return p.uses(s) }) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.kernel.enter(s); err != nil {
			return err
		}
		for i, p := range parts {
			if err := f.take(p, s, at >= len(states)/2, taken[i]); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	for i, p := range parts {
		if counts {
			p.rounds = append(p.rounds, taken[i])
		}
	}
	return nil
}

func (p *part) uses(s state) bool {
	return slices.ContainsFunc(p.samples, func(x sample) bool { return x.state == s })
}

// take times the samples of a state, in order or backwards.
func (f *fixture) take(p *part, s state, back bool, into times) error {
	samples := slices.Clone(p.samples)
	if back {
		slices.Reverse(samples)
	}
	for _, x := range samples {
		if x.state != s {
			continue
		}
		ns, err := f.time(x)
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		into[x.name] += ns
	}
	return nil
}

func (f *fixture) time(x sample) (ns float64, err error) {
	if x.before != nil {
		if err := x.before(f.kernel); err != nil {
			return 0, err
		}
	}
	if ns, err = f.workers[x.worker].do(x.job); err != nil {
		return 0, err
	}
	if x.after != nil {
		err = x.after(f.kernel)
	}
	return ns, err
}
