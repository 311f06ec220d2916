// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bailiff.dev/bailiff/internal/audit"
)

// told is what the log says of a run of TestKills.
type told struct {
	acts     map[string]int // denied ones, by what they were about
	started  map[string]int // sessions, by id
	ended    map[string]int
	task     map[string]string // of a session
	gaps     int
	inForce  []inForce // by generation
	ids      map[string]int
	unnamed  int // acts of a session that is not named
	lost     []string
	misnamed []string // acts that are told with another rule than the one that judged
}

// inForce is which policy judged from a generation on.
type inForce struct {
	generation uint64
	policy     string
}

func (k *kills) read(t *testing.T) *told {
	t.Helper()
	events := k.events(t)
	r := &told{acts: map[string]int{}, started: map[string]int{}, ended: map[string]int{}, task: map[string]string{}, ids: map[string]int{}}
	for i := range events {
		ev := &events[i]
		r.ids[ev.ID]++
		switch {
		case ev.Kind == audit.Policy && ev.Message != "policies applied": // mounts changed, under the same policies
		case ev.Kind == audit.Policy:
			r.inForce = append(r.inForce, inForce{ev.Generation, ev.Fields["policies"]})
		case ev.Message == "session started":
			r.started[ev.Session]++
			r.task[ev.Session] = ev.Task
		case ev.Message == "session ended":
			r.ended[ev.Session]++
		case ev.Message == "daemon gap":
			r.gaps++
		case ev.Message == "events were lost":
			r.lost = append(r.lost, fmt.Sprint(ev.Fields))
		}
	}
	slices.SortFunc(r.inForce, func(a, b inForce) int { return int(a.generation) - int(b.generation) })
	for i := range events {
		if ev := &events[i]; ev.Kind == audit.Action && ev.Verdict == "deny" {
			r.act(ev)
		}
	}
	return r
}

func (r *told) act(ev *audit.Event) {
	if ev.Operation != "connect" && ev.Operation != "create" {
		return // what programs try by themselves when they start
	}
	r.acts[describe(ev)] += int(max(ev.Count, 1))
	if ev.Session == "" {
		r.unnamed++
	}
	if ev.Operation != "connect" {
		return
	}
	policy := ""
	for _, f := range r.inForce {
		if f.generation <= ev.Generation {
			policy = f.policy
		}
	}
	if !strings.HasPrefix(ev.Rule, policy+"/network/") && len(r.misnamed) < 10 {
		r.misnamed = append(r.misnamed, fmt.Sprintf("%s in generation %d of %s: %q", describe(ev), ev.Generation, policy, ev.Rule))
	}
}

// check compares the log with what the workers say.
func (k *kills) check(t *testing.T) {
	t.Helper()
	r := k.read(t)
	acts := k.checkWorkers(t, r)
	for _, task := range k.shorts {
		var index int
		fmt.Sscanf(task, "short-%d", &index)
		acts += k.checkAct(t, r, connectText(100, index))
	}
	for what, n := range r.acts {
		if n != 1 {
			t.Errorf("%q was denied once and is in the log %d times", what, n)
		}
	}
	k.checkSessions(t, r)
	changes := map[uint64]int{}
	for _, f := range r.inForce {
		if changes[f.generation]++; changes[f.generation] > 1 {
			t.Errorf("the change to generation %d is in the log twice", f.generation)
		}
	}
	if n := len(r.inForce); n < k.applied+1 || n > k.applies+1 {
		t.Errorf("%d changes of policies are in the log; %d were answered of %d", n, k.applied+1, k.applies+1)
	}
	for id, n := range r.ids {
		if n > 1 {
			t.Errorf("%d events have the id %s", n, id)
		}
	}
	if r.gaps == 0 || len(r.lost) > 0 || r.unnamed > 0 {
		t.Errorf("%d gaps are in the log; lost: %v; %d acts of a session without a name", r.gaps, r.lost, r.unnamed)
	}
	for _, text := range append(r.misnamed, k.wrong...) {
		t.Error(text)
	}
	t.Logf("%d denied acts in the log once, %d sessions, %d of them short, %d launches with nobody there, %d changes of policies, %d gaps",
		acts, len(r.started), len(k.shorts), k.unasked, len(r.inForce), r.gaps)
}

func connectText(second, index int) string {
	a := workerAddress(second, index)
	return fmt.Sprintf("connect %d.%d.%d.%d:%d/tcp", a[0], a[1], a[2], a[3], workerPort)
}

func (k *kills) checkWorkers(t *testing.T, r *told) (acts int) {
	t.Helper()
	for i, out := range k.outputs {
		var w worked
		if err := json.Unmarshal([]byte(strings.TrimPrefix(out.String(), workerReady)), &w); err != nil {
			t.Errorf("worker %d says %q: %v", i, out, err)
			continue
		}
		for _, text := range w.Wrong {
			t.Errorf("worker %d: %s", i, text)
		}
		for index := range w.Connects {
			acts += k.checkAct(t, r, connectText(65+i, index))
		}
		if !k.full {
			continue
		}
		for index := range w.Creates {
			acts += k.checkAct(t, r, "create "+filepath.Join(k.dir, fmt.Sprintf("denied-%d/%d", i, index)))
		}
	}
	return acts
}

// checkAct takes an act that was denied out of those that are in the log once.
func (k *kills) checkAct(t *testing.T, r *told, text string) int {
	t.Helper()
	n := r.acts[text]
	delete(r.acts, text)
	if n != 1 && !t.Failed() {
		t.Errorf("%q was denied once and is in the log %d times", text, n)
	}
	return n
}

// checkSessions: each session begins once and ends once, and each one that ran is there.
func (k *kills) checkSessions(t *testing.T, r *told) {
	t.Helper()
	tasks := map[string]int{}
	for id, n := range r.started {
		tasks[r.task[id]]++
		if n != 1 || r.ended[id] != 1 {
			t.Errorf("session %s (%s) is told to begin %d times and to end %d times", id, r.task[id], n, r.ended[id])
		}
	}
	for id := range r.ended {
		if r.started[id] == 0 {
			t.Errorf("session %s is told to end and not to begin", id)
		}
	}
	for _, task := range k.shorts {
		if tasks[task] != 1 {
			t.Errorf("%d sessions of %s are in the log, one ran", tasks[task], task)
		}
	}
}
