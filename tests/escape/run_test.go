// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// world is a place to try techniques from.
type world struct {
	policy string // narrow or loose; "" is outside of every session
	bare   bool   // held by the kernel's label alone
	uid    int
}

func (w *world) name() string {
	user := "root"
	if w.uid != 0 {
		user = "nobody"
	}
	switch {
	case w.policy == "":
		return "free-" + user
	case w.bare:
		return w.policy + "-bare-" + user
	}
	return w.policy + "-" + user
}

// worlds returns them in the order of use. Outside, attacks succeed, and wreck
// what they reach: that comes last, and root after others.
func worlds() (list []*world) {
	for _, policy := range []string{"narrow", "loose"} {
		for _, bare := range []bool{false, true} {
			for _, uid := range []int{nobody, 0} {
				list = append(list, &world{policy, bare, uid})
			}
		}
	}
	return append(list, &world{uid: nobody}, &world{})
}

// launchedWorlds are those of sessions that `bailiff run` started.
func launchedWorlds() []*world {
	return slices.DeleteFunc(worlds(), func(w *world) bool { return w.bare || w.policy == "" })
}

// rootsWorlds are the sessions of root.
func rootsWorlds() []*world {
	return slices.DeleteFunc(worlds(), func(w *world) bool { return w.uid != 0 || w.policy == "" })
}

// wants tells whether a technique is tried from here.
func (w *world) wants(t *technique) bool {
	if t.stage != nil {
		return false
	}
	if t.root && w.uid != 0 || t.user && w.uid == 0 {
		return false
	}
	return w.policy == "" || t.loose == (w.policy == "loose")
}

// attempt is a technique tried from one world.
type attempt struct {
	world             *world
	attack, neighbour answer
	task              string // of the session at the time
	expect            int    // denials that must be in the log, in place of what the attack says
	events            []string
}

// run is one run of the suite.
type run struct {
	host  *host
	field *field
	only  *regexp.Regexp
	basic bool // on the basic tier, where the log tells of the network alone

	quick      bool                  // without what takes long, and what happens outside of sessions
	impossible map[string]bool       // by id, what fails outside of sessions, where that was not tried
	attempts   map[string][]*attempt // by technique
	tasks      []string
}

// TestEscape performs the suite.
//
// With BAILIFF_ESCAPE=all, as make escape runs it, that is all of it, on both
// tiers, and the results are left in $BAILIFF_VM_OUT. Else it is root's sessions
// on the full tier, which takes a minute: what the attacks do outside of sessions
// is taken from the results that are kept, and nothing is left.
// BAILIFF_ESCAPE_ONLY is an expression for the ids of techniques to try.
func TestEscape(t *testing.T) {
	if !kerneltest.InVM() {
		t.Skip(kerneltest.SkipReason + "vm: the attacks wreck the machine that they succeed on: run make escape")
	}
	kerneltest.RequireFullTier(t)
	kept, err := readResults(resultsFile)
	must(t, err)
	series, release := kernel(t)
	if os.Getenv("BAILIFF_ESCAPE") != "all" {
		full := perform(t, "full", rootsWorlds())
		full.impossible = kept.impossible(series)
		report(t, kept, results{Kernels: map[string]string{series: release}}, map[string]*run{series: full})
		return
	}
	var basic, full *run
	t.Run("basic", func(t *testing.T) { basic = perform(t, "basic", launchedWorlds()) })
	t.Run("full", func(t *testing.T) { full = perform(t, "full", worlds()) })
	if t.Failed() {
		t.FailNow() // what is not there has no result
	}
	for id, attempts := range full.attempts {
		for _, a := range attempts {
			if a.world.policy == "" && basic.attempts[id] != nil {
				basic.attempts[id] = append(basic.attempts[id], a)
			}
		}
	}
	now := results{Kernels: map[string]string{series: release, series + basicTier: release}}
	now = report(t, kept, now, map[string]*run{series: full, series + basicTier: basic})
	if dir := os.Getenv("BAILIFF_VM_OUT"); dir != "" {
		must(t, writeJSON(filepath.Join(dir, "techniques.json"), now))
	}
}

// perform tries on one tier what is to be tried from some worlds. Outside of
// sessions comes last: what succeeds there wrecks the rest.
func perform(t *testing.T, tier string, from []*world) *run {
	t.Helper()
	h := newHost(t, tier)
	r := &run{
		host: h, field: newField(t, h), only: regexp.MustCompile(os.Getenv("BAILIFF_ESCAPE_ONLY")),
		basic: tier == "basic", quick: from[len(from)-1].policy != "" && tier == "full", attempts: map[string][]*attempt{},
	}
	h.bailiff(t, r.field.expand(policies), "policy", "apply", "-", "--replace", "--accept-degraded")
	staged := false
	for _, w := range from {
		if w.policy == "" {
			if !staged {
				r.stage(t)
				staged = true
			}
			r.field.files(t)
		}
		began := time.Now()
		r.visit(t, w)
		t.Logf("%s: %v", w.name(), time.Since(began).Round(time.Millisecond))
	}
	if !staged {
		r.stage(t)
	}
	r.attribute(h.denials(t, r.tasks))
	return r
}

// wanted tells whether a technique is part of this run.
func (r *run) wanted(x *technique) bool {
	return r.only.MatchString(x.id) && (x.basic || !r.basic) && !(x.long && r.quick)
}

// stage has the test itself do what it has a part in.
func (r *run) stage(t *testing.T) {
	t.Helper()
	for _, x := range stagedTechniques() {
		if r.wanted(&x) {
			began := time.Now()
			r.attempts[x.id] = x.stage(t, r)
			t.Logf("%s: %v", x.id, time.Since(began).Round(time.Millisecond))
		}
	}
}

// visit tries from one world everything that is tried from there.
func (r *run) visit(t *testing.T, w *world) {
	p := &pool{run: r, world: w, members: make([]*member, poolSize)}
	if w.policy == "" || r.basic {
		p.members = p.members[:1] // nobody looks for records
	}
	defer p.dismiss()
	for _, x := range inTurn(groups()) {
		if !w.wants(&x) || !r.wanted(&x) {
			continue
		}
		a := &attempt{world: w}
		r.attempts[x.id] = append(r.attempts[x.id], a)
		if x.neighbour != nil && w.policy != "" {
			a.neighbour = p.choose(t, nil).do(t, order{x.id, true}, nil)
		}
		m := p.choose(t, x.forms())
		a.attack, a.task = m.do(t, order{x.id, false}, x.forms()), m.task
		if a.attack.Stuck && w.policy == "" { // a machine without KVM stalls now and then
			a.attack = p.choose(t, nil).do(t, order{x.id, false}, nil)
		}
	}
}

// inTurn takes one technique of each group, then the next of each: those of one
// group are often recorded alike.
func inTurn(list []group) (techniques []technique) {
	for i := 0; ; i++ {
		before := len(techniques)
		for _, g := range list {
			if i < len(g.techniques) {
				techniques = append(techniques, g.techniques[i])
			}
		}
		if len(techniques) == before {
			return techniques
		}
	}
}

// pool is the sessions of one world. An act that a session repeats within a
// second is counted with the one before, and not recorded by itself: so attempts
// that may be recorded alike are of different sessions, or are apart.
type pool struct {
	run     *run
	world   *world
	members []*member
}

// The kernel folds what is repeated within a second.
const (
	poolSize = 6
	apart    = 1100 * time.Millisecond
)

// member is one session, and when each form of record was last expected of it.
type member struct {
	crew *crew
	task string
	last map[string]time.Time
}

// choose returns the session that has not been expected to do such acts for
// longest, once that is long enough.
func (p *pool) choose(t *testing.T, forms []string) *member {
	t.Helper()
	best, at := 0, time.Time{}
	for i, m := range p.members {
		latest := time.Time{}
		for _, form := range forms {
			if m != nil && m.last[form].After(latest) {
				latest = m.last[form]
			}
		}
		if i == 0 || latest.Before(at) {
			best, at = i, latest
		}
	}
	m := p.members[best]
	if m == nil || m.crew.dead {
		m = &member{last: map[string]time.Time{}}
		m.crew, m.task = p.run.hire(t, p.world)
		p.members[best] = m
	}
	if len(p.members) > 1 {
		time.Sleep(time.Until(at.Add(apart)))
	}
	return m
}

// do has the session try something, which is recorded in one of some forms.
func (m *member) do(t *testing.T, o order, forms []string) answer {
	t.Helper()
	got, err := m.crew.do(o)
	for _, form := range forms {
		m.last[form] = time.Now()
	}
	if err != nil { // it took the worker with it, or the session was ended
		m.crew.dismiss()
		m.crew.dead = true
	}
	if took := time.Duration(got.End - got.Began); took > 2*time.Second {
		t.Logf("%s took %v: %s", o.ID, took, got.Text)
	}
	return got
}

func (p *pool) dismiss() {
	for _, m := range p.members {
		if m != nil && !m.crew.dead {
			m.crew.dismiss()
		}
	}
}

// hire starts a worker, in a session of a task of its own unless that is outside.
func (r *run) hire(t *testing.T, w *world) (worker *crew, task string) {
	t.Helper()
	task = fmt.Sprintf("%s-%d", w.name(), len(r.tasks))
	c := exec.Command(r.field.Binary)
	c.Env = r.field.environment(w)
	switch {
	case w.policy == "":
		c.Env = append(c.Env, roleVariable+"=work")
		c.SysProcAttr = as(w.uid)
		task = ""
	case w.bare:
		c.Env = append(c.Env, roleVariable+"=join", "BAILIFF_ESCAPE_AGENT="+w.policy, "BAILIFF_ESCAPE_TASK="+task, fmt.Sprint("BAILIFF_ESCAPE_USER=", w.uid))
	default:
		c.Env = append(c.Env, roleVariable+"=work")
		c.Path = filepath.Join(r.host.bin, "bailiff")
		c.Args = []string{"bailiff", "run", "--quiet", "--agent", w.policy, "--task", task}
		if w.uid != 0 {
			c.Args = append(c.Args, "--user", "nobody")
		}
		c.Args = append(c.Args, "--", r.field.Binary)
	}
	c.Dir = r.field.Work
	c.ExtraFiles = r.field.extra
	c.Stderr = os.Stderr
	worker, err := hire(c)
	must(t, err)
	if task != "" {
		r.tasks = append(r.tasks, task)
	}
	return worker, task
}

// as returns what starts a process as a user.
func as(uid int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if uid != 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return attr
}

// attribute gives each attempt the denials of its time.
func (r *run) attribute(denied map[string][]audit.Event) {
	for _, attempts := range r.attempts {
		for _, a := range attempts {
			for _, ev := range denied[a.task] {
				if a.task != "" && ev.BootNS >= a.attack.Began && ev.BootNS <= a.attack.End {
					a.events = append(a.events, describe(&ev))
				}
			}
			if a.expect > 0 {
				a.attack.Done = len(a.events) < a.expect
				a.attack.Text = fmt.Sprintf("%d of %d records are there", len(a.events), a.expect)
			}
		}
	}
}

// recorded tells whether the log tells of the attack.
func (a *attempt) recorded(t *technique, f *field) bool {
	for _, form := range t.forms() {
		operation, rest, _ := strings.Cut(f.in(a.world).expand(form), " ")
		reason, object, _ := strings.Cut(rest, " ")
		for _, ev := range a.events {
			if strings.HasPrefix(ev, operation+" "+reason) && strings.Contains(ev, object) {
				return true
			}
		}
	}
	return false
}
