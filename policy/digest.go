// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
)

func compareEdge[T cmp.Ordered](fromA, fromB uint32, a, b T) int {
	return cmp.Or(cmp.Compare(fromA, fromB), cmp.Compare(a, b))
}

// digest is the SHA-256 of everything that decides and of what a decision is
// recorded as; the places of lines in their files are not part of it.
func (r *Ruleset) digest() [32]byte {
	h := sha256.New()
	// A hash's Write returns no error.
	w := &digestWriter{w: bufio.NewWriterSize(h, 64<<10)}
	w.text("bailiff ruleset 2")
	w.text(r.Agent)
	w.num(boolByte(r.Audit), r.Self, r.Capabilities)
	w.num(uint64(len(r.Rules)))
	for i := range r.Rules {
		rule := &r.Rules[i]
		w.text(rule.ID)
		w.text(rule.Policy)
		w.text(rule.Text)
		w.num(boolByte(rule.Guard), boolByte(rule.Deny))
	}
	w.automaton(&r.Files)
	w.net(&r.Net)
	w.environment(&r.Env)
	_ = w.w.Flush()
	return [32]byte(h.Sum(nil))
}

// digestWriter writes values so that no two different sequences look the same.
type digestWriter struct {
	w       *bufio.Writer
	scratch []byte
}

func (w *digestWriter) text(s string) {
	w.num(uint64(len(s)))
	_, _ = w.w.WriteString(s)
}

func (w *digestWriter) num(values ...any) {
	for _, v := range values {
		w.scratch, _ = binary.Append(w.scratch[:0], binary.LittleEndian, v)
		_, _ = w.w.Write(w.scratch)
	}
}

func (w *digestWriter) automaton(a *Automaton) {
	w.num(a.Start, uint64(len(a.States)), uint64(len(a.Edges)), uint64(len(a.GlobEdges)), uint64(len(a.Globs)))
	w.num(a.States, a.GlobEdges, a.Globs)
	for i := range a.Edges {
		w.num(a.Edges[i].From, a.Edges[i].To)
		w.text(a.Edges[i].Name)
	}
}

func (w *digestWriter) net(t *NetTable) {
	w.num(uint64(len(t.Prefixes)), uint64(len(t.PortSets)))
	for _, p := range t.Prefixes {
		w.num(p.Direction)
		w.text(p.Prefix.String())
		w.num(uint64(p.Ports))
	}
	for _, set := range t.PortSets {
		w.num(uint64(len(set)))
		for i := range set {
			w.scratch = appendPortRange(w.scratch[:0], &set[i])
			_, _ = w.w.Write(w.scratch)
		}
	}
}

func (w *digestWriter) environment(e *Environment) {
	w.num(uint64(len(e.Drop)), uint64(len(e.Set)))
	for _, d := range e.Drop {
		w.text(d)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Set)) {
		w.text(name)
		w.text(e.Set[name])
	}
}
