// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// status is what the suite found of a technique on one kernel.
type status string

// From best to worst.
const (
	stopped    status = "stopped"
	impossible status = "impossible" // it fails outside of sessions too
	atLaunch   status = "at launch"  // only what the launcher takes away stops it
	unrecorded status = "unrecorded" // the log does not tell of it
	open       status = "open"       // it succeeds
	broken     status = "broken"     // its neighbour fails, or it fails for another reason than being denied
)

func ranks() []status { return []status{stopped, impossible, atLaunch, unrecorded, open, broken} }

func (s status) worse(than status) bool {
	return slices.Index(ranks(), s) > slices.Index(ranks(), than)
}

// results are what docs/techniques.json holds.
type results struct {
	Kernels    map[string]string            `json:"kernels"`    // release by series
	Techniques map[string]map[string]status `json:"techniques"` // by id, by series
}

// basicTier ends the name of a kernel whose LSM programs were not used.
const basicTier = " basic"

const resultsFile = "../../docs/techniques.json"

func readResults(path string) (results, error) {
	r := results{map[string]string{}, map[string]map[string]status{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(text, &r)
}

// kernel returns the running kernel's series and release.
func kernel(t *testing.T) (series, release string) {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	release = unix.ByteSliceToString(u.Release[:])
	parts := strings.SplitN(release, ".", 3)
	return parts[0] + "." + parts[1], release
}

// judge says what a run found of a technique, and why.
func (r *run) judge(x *technique) (status, []string) {
	free, notes, stuck := map[int]bool{}, []string(nil), false
	if r.impossible != nil {
		free[0] = !r.impossible[x.id]
	}
	attempts := r.attempts[x.id]
	for _, a := range attempts {
		if a.world.policy == "" {
			free[a.world.uid] = a.attack.Done
			stuck = stuck || a.attack.Stuck
			if !a.attack.Done {
				notes = append(notes, fmt.Sprintf("%s: %s", a.world.name(), a.attack.Text))
			}
		}
	}
	switch {
	case free[0] || free[nobody]:
	case stuck:
		return broken, notes
	default:
		return impossible, notes
	}
	worst := stopped
	for _, a := range attempts {
		if a.world.policy == "" || !free[a.world.uid] {
			continue
		}
		got, why := r.judgeAttempt(x, a)
		if why != "" {
			notes = append(notes, a.world.name()+": "+why)
		}
		if got.worse(worst) {
			worst = got
		}
	}
	if worst == open && x.launch && !r.anyOpen(x, false) {
		worst = atLaunch
	}
	return worst, notes
}

// anyOpen tells whether the attack succeeded in a session of one sort.
func (r *run) anyOpen(x *technique, bare bool) bool {
	return slices.ContainsFunc(r.attempts[x.id], func(a *attempt) bool {
		return a.world.policy != "" && a.world.bare == bare && a.attack.Done
	})
}

func (r *run) judgeAttempt(x *technique, a *attempt) (status, string) {
	switch {
	case a.attack.Done:
		return open, "it succeeded"
	case !a.attack.refused():
		return broken, "it failed, but was not denied: " + a.attack.Text
	case x.neighbour != nil && !a.neighbour.Done:
		return broken, "its neighbour failed: " + a.neighbour.Text
	case x.seen == "" || r.basic || x.launch && !a.world.bare:
		return stopped, ""
	case !a.recorded(x, r.field):
		return unrecorded, fmt.Sprintf("the log has no %q; it has %q (%s)", r.field.expand(x.seen), a.events, a.attack.Text)
	}
	return stopped, ""
}

// report prints technique by technique, fails for what is worse than what was
// kept or not explained, counts, and adds to the results. Runs are by the columns
// of the table.
func report(t *testing.T, kept, now results, runs map[string]*run) results {
	now.Techniques = map[string]map[string]status{}
	columns := now.series()
	counts := map[string]map[status]int{}
	for _, g := range groups() {
		fmt.Printf("-- %s\n", g.name)
		for _, x := range g.techniques {
			line, found := "", map[string]status{}
			var checks []func(*testing.T)
			for _, column := range columns {
				r := runs[column]
				if !r.wanted(&x) || len(r.attempts[x.id]) == 0 {
					line += fmt.Sprintf("%-11s ", "")
					continue
				}
				got, notes := r.judge(&x)
				found[column] = got
				if counts[column] == nil {
					counts[column] = map[status]int{}
				}
				counts[column][got]++
				line += fmt.Sprintf("%-11s ", got)
				checks = append(checks, func(t *testing.T) { x.check(t, column, got, kept.Techniques[x.id][column], notes) })
			}
			if len(found) > 0 {
				now.Techniques[x.id] = found
				fmt.Printf("%s%-24s %s\n", line, x.id, x.title)
				t.Run(x.id, func(t *testing.T) {
					for _, check := range checks {
						check(t)
					}
				})
			}
		}
	}
	for _, column := range columns {
		fmt.Printf("== %s (%s): %s\n", column, now.Kernels[column], countText(counts[column]))
	}
	return now
}

// impossible returns what failed outside of sessions on a kernel.
func (r *results) impossible(column string) map[string]bool {
	ids := map[string]bool{}
	for id, found := range r.Techniques {
		ids[id] = found[column] == impossible
	}
	return ids
}

// countText is "N techniques: N stopped, N open".
func countText(counts map[status]int) string {
	sum, text := 0, ""
	for _, s := range ranks() {
		if n := counts[s]; n > 0 {
			sum += n
			text += fmt.Sprintf(", %d %s", n, s)
		}
	}
	return fmt.Sprintf("%d techniques%s", sum, text)
}

func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// check fails for a result that is worse than the one that was kept, or that
// nothing explains.
func (x *technique) check(t *testing.T, column string, got, before status, notes []string) {
	complain := t.Logf
	if before == "" && got != stopped && x.explanation(column, got) == "" || before != "" && got.worse(before) {
		complain = t.Errorf
	}
	if got != stopped {
		complain("%s: %s (before: %q):\n\t%s", column, got, before, strings.Join(notes, "\n\t"))
	}
}

// explanation is what the table says of a status other than stopped.
func (x *technique) explanation(column string, s status) string {
	if strings.HasSuffix(column, basicTier) && s == open {
		return "the basic tier has no means against it on this kernel"
	}
	switch s {
	case stopped:
		return ""
	case impossible:
		return x.impossible
	case broken:
		return cmp.Or(x.open, "in the run that is kept, its neighbour failed, or the attack did for another reason than being denied")
	case atLaunch:
		return cmp.Or(x.open, "the launcher's filter and its dropping of capabilities stop it, no program does")
	}
	if s == unrecorded {
		return cmp.Or(x.open, "it fails, and no record of that run was matched to it")
	}
	return cmp.Or(x.open, "no program judges it")
}
