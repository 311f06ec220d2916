// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// live is what the canary found, by layer. Without a canary it is empty.
type live struct {
	mu     sync.Mutex
	layers []liveLayer
}

// liveLayer is a layer of enforcement; problem nil: what must be denied was.
type liveLayer struct {
	name    string
	problem error
}

// set notes what was found, and tells whether that is news: it is if a layer that
// was live is not, or the other way round. At first all are taken to be live.
func (l *live) set(name string, problem error) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.layers, func(x liveLayer) bool { return x.name == name })
	if i < 0 {
		l.layers = append(l.layers, liveLayer{name: name, problem: problem})
		return problem != nil
	}
	news = (l.layers[i].problem == nil) != (problem == nil)
	l.layers[i].problem = problem
	return news
}

// found returns the layers that were tried, and those of them that are not live.
func (l *live) found() (tried []string, dead []liveLayer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.layers {
		tried = append(tried, x.name)
		if x.problem != nil {
			dead = append(dead, x)
		}
	}
	return tried, dead
}

// err says which layers are not live; nil where all are.
func (l *live) err() error {
	_, dead := l.found()
	var parts []string
	for _, x := range dead {
		parts = append(parts, fmt.Sprintf("%s: %v", x.name, x.problem))
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New("enforcement is not live: " + strings.Join(parts, "; "))
}

// noteLayer tells what the canary found of a layer, to the log once a change.
func (d *Daemon) noteLayer(layer string, problem error) {
	d.metrics.Live(layer, problem == nil)
	if !d.live.set(layer, problem) {
		return
	}
	fields := map[string]string{"layer": layer}
	message := "enforcement is live again"
	if problem == nil {
		d.log.Warn(message, "layer", layer)
	} else {
		message = "enforcement is not live"
		fields["reason"] = problem.Error()
		d.log.Error(message, "layer", layer, "reason", problem, "remedy", liveRemedy())
	}
	d.audit.Write(audit.Event{Kind: audit.System, Message: message, Fields: fields})
}

// liveProbe is what `bailiff doctor` shows of the canary.
func (d *Daemon) liveProbe() *controlv1.Probe {
	p := &controlv1.Probe{Name: "canary"}
	tried, dead := d.live.found()
	switch {
	case len(tried) == 0:
		p.Result, p.Remedy = "off: nothing shows whether what must be denied is", "remove canary: off from bailiffd's configuration"
	case len(dead) == 0:
		p.Ok, p.Result = true, "denied what it must be, and nothing else: "+strings.Join(tried, ", ")
	default:
		p.Result, p.Remedy = d.live.err().Error(), liveRemedy()
	}
	return p
}

const ftraceEnabled = "/proc/sys/kernel/ftrace_enabled"

// liveRemedy says what would help where enforcement is not live.
func liveRemedy() string {
	if value, err := os.ReadFile(ftraceEnabled); err == nil && strings.TrimSpace(string(value)) == "0" {
		return "write 1 to " + ftraceEnabled + ": while it is 0 the kernel runs no LSM program"
	}
	return "restart bailiffd, which attaches again what was detached; until then no session is launched"
}
