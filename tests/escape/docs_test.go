// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	update = flag.Bool("update", false, "write docs/techniques.json and docs/techniques.md instead of comparing")
	merge  = flag.String("merge", "", "files of results, by blanks, that go into docs/techniques.json with -update")
)

const tableFile = "../../docs/techniques.md"

// TestDocs holds docs/techniques.md to the suite and its kept results.
func TestDocs(t *testing.T) {
	kept, err := readResults(resultsFile)
	must(t, err)
	if *update {
		for _, name := range strings.Fields(*merge) {
			more, err := readResults(name)
			must(t, err)
			kept.add(more)
		}
		kept.prune()
		must(t, writeJSON(resultsFile, kept))
		must(t, os.WriteFile(tableFile, table(kept), 0o644))
	}
	got, err := os.ReadFile(tableFile)
	must(t, err)
	if !bytes.Equal(got, table(kept)) {
		t.Errorf("%s is stale: go test ./tests/escape -run TestDocs -update", tableFile)
	}
	for id, byKernel := range kept.Techniques {
		x, ok := all()[id]
		if !ok {
			t.Errorf("%s has a result of %s, which the suite does not have", resultsFile, id)
		}
		for series, s := range byKernel {
			if slices.Index(ranks(), s) < 0 || kept.Kernels[series] == "" {
				t.Errorf("%s: %s: no such status or kernel: %q, %q", resultsFile, id, s, series)
			}
			if ok && s != stopped && x.explanation(series, s) == "" {
				t.Errorf("%s is %s on %s, and the suite does not say why", id, s, series)
			}
		}
	}
	for id, x := range all() {
		for series := range kept.Kernels {
			if kept.Techniques[id][series] == "" && (x.basic || !strings.HasSuffix(series, basicTier)) {
				t.Errorf("%s has no result on %s: make escape UPDATE=1", id, series)
			}
		}
	}
}

// TestTable checks what the kernel has no part in.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range groups() {
		for _, x := range g.techniques {
			if seen[x.id] || x.id == "" || strings.ToLower(x.id) != x.id || strings.ContainsAny(x.id, " |/") {
				t.Errorf("the id %q is taken, or not one", x.id)
			}
			seen[x.id] = true
			if x.title == "" || x.hooks == "" || (x.attack == nil) == (x.stage == nil) {
				t.Errorf("%s: incomplete", x.id)
			}
			if (x.seen == "") == (x.unrecorded == "") {
				t.Errorf("%s: it must say either how it is recorded, or why not", x.id)
			}
		}
	}
}

// add takes what another run found.
func (r *results) add(more results) {
	maps.Copy(r.Kernels, more.Kernels)
	for id, byKernel := range more.Techniques {
		if r.Techniques[id] == nil {
			r.Techniques[id] = map[string]status{}
		}
		maps.Copy(r.Techniques[id], byKernel)
	}
}

// prune drops what the suite no longer has.
func (r *results) prune() {
	known := all()
	maps.DeleteFunc(r.Techniques, func(id string, _ map[string]status) bool { _, ok := known[id]; return !ok })
	for id, found := range r.Techniques {
		maps.DeleteFunc(found, func(column string, _ status) bool { return !known[id].basic && strings.HasSuffix(column, basicTier) })
	}
}

// series returns the kernels with results, oldest first.
func (r *results) series() []string {
	number := func(s string) int {
		s, basic := strings.CutSuffix(s, basicTier)
		major, minor, _ := strings.Cut(s, ".")
		a, _ := strconv.Atoi(major)
		b, _ := strconv.Atoi(minor)
		if basic {
			a += 1000 // after all of the full tier
		}
		return a*1000 + b
	}
	return slices.SortedFunc(maps.Keys(r.Kernels), func(a, b string) int { return cmp.Compare(number(a), number(b)) })
}

const tableHead = `<!-- Generated: go test ./tests/escape -run TestDocs -update. Don't edit. -->
# Ways out of a session, and what became of them

` + "`make escape`" + ` performs every technique below from inside sessions of a live bailiffd, in a virtual machine of each
kernel, as root and as an ordinary user: in a session that ` + "`bailiff run`" + ` started, and in one that only the kernel's label
holds, without the filter of system calls and with all capabilities, so that the BPF programs are proven by themselves.
*stopped* means that the attack failed in all of them, that it succeeded outside of any session in the same run, that the same
thing within the policy worked, and that the log told of the denial. The other words:

- *at launch*: what ` + "`bailiff run`" + ` takes from a process stops it; the BPF programs alone don't.
- *unrecorded*: it fails, and the log has no matching record.
- *open*: it succeeds. *broken*: the suite itself can't tell.
- *impossible*: it fails on that kernel outside of sessions too, so nothing is proven.

The columns *basic* are of the same kernel with the basic tier alone: cgroup programs, Landlock and the launcher's filter, in
a session that ` + "`bailiff run`" + ` started. They are empty for what that tier does not claim to stop.

The techniques marked **all** were tried under a policy that allows everything a policy can allow. Each is the test
` + "`TestEscape/ID`" + ` in tests/escape.

`

// table generates docs/techniques.md.
func table(r results) []byte {
	var b strings.Builder
	b.WriteString(tableHead)
	kernels := r.series()
	for _, k := range kernels {
		counts := map[status]int{}
		for _, byKernel := range r.Techniques {
			counts[byKernel[k]]++
		}
		fmt.Fprintf(&b, "- %s (%s):", k, r.Kernels[k])
		for i, s := range slices.DeleteFunc(ranks(), func(s status) bool { return counts[s] == 0 }) {
			fmt.Fprintf(&b, "%s %d %s", map[bool]string{true: ","}[i > 0], counts[s], s)
		}
		b.WriteString("\n")
	}
	for _, g := range groups() {
		fmt.Fprintf(&b, "\n## %s\n\n| technique | ID | stopped by | %s |\n|---|---|---|%s\n", g.name,
			strings.Join(kernels, " | "), strings.Repeat("---|", len(kernels)))
		for _, x := range g.techniques {
			x.row(&b, r.Techniques[x.id], kernels)
		}
		g.footnotes(&b, &r)
	}
	return []byte(b.String())
}

func (x *technique) row(b *strings.Builder, found map[string]status, kernels []string) {
	title := x.title
	if x.loose {
		title += " (**all**)"
	}
	fmt.Fprintf(b, "| %s | %s | %s |", strings.ReplaceAll(title, "|", "\\|"), x.id, x.hooks)
	for _, k := range kernels {
		fmt.Fprintf(b, " %s |", found[k])
	}
	b.WriteString("\n")
}

// footnotes tell why things aren't stopped, or aren't recorded.
func (g *group) footnotes(b *strings.Builder, r *results) {
	var order []string
	ids := map[string][]string{}
	for _, x := range g.techniques {
		for _, text := range x.footnotes(r) {
			if ids[text] == nil {
				order = append(order, text)
			}
			ids[text] = append(ids[text], x.id)
		}
	}
	for _, text := range order {
		fmt.Fprintf(b, "\n%s: %s.\n", strings.Join(ids[text], ", "), text)
	}
}

func (x *technique) footnotes(r *results) (list []string) {
	for _, column := range r.series() {
		s := r.Techniques[x.id][column]
		if text := x.explanation(column, s); s != "" && text != "" && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	if x.unrecorded != "" {
		list = append(list, "not recorded: "+x.unrecorded)
	}
	return list
}
