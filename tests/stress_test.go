// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	rpc "connectrpc.com/connect"

	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// stress is many sessions under many policies, one of which changes all the time.
type stress struct {
	t        *testing.T
	h        *host
	admin    controlv1connect.AdminServiceClient
	sessions int
	policies int // documents in force
	every    time.Duration
	pause    time.Duration // between two rounds of a session
	binary   string
	ports    [3]int
	version  int
	reloads  []time.Duration // how long each took
}

// TestStress checks that no verdict is ever wrong, and that nothing is left in
// memory or in the kernel, while sessions work through changes of policies.
// BAILIFF_STRESS says for how long; without it it is a short one of few sessions.
func TestStress(t *testing.T) {
	const short = 8 * time.Second
	lasting, s := short, &stress{t: t, sessions: 12, policies: 300, every: 100 * time.Millisecond, pause: 100 * time.Millisecond}
	if text := os.Getenv("BAILIFF_STRESS"); text != "" {
		var err error
		if lasting, err = time.ParseDuration(text); err != nil {
			t.Fatalf("BAILIFF_STRESS: %v", err)
		}
		s.sessions, s.policies, s.pause = 200, 10000, time.Second
	}
	switch {
	case !kerneltest.InVM():
	case lasting == short:
		s.sessions, s.policies, s.pause = 4, 80, 5*s.pause
	default: // without KVM it does a hundredth of the work in the time
		s.pause *= 100
	}
	s.prepare()
	s.warmUp()
	before := s.measure()
	workers := s.start(s.sessions)
	began, first := time.Now(), len(s.reloads)
	for next := began; time.Since(began) < lasting; next = next.Add(s.every) {
		time.Sleep(time.Until(next))
		s.reload()
	}
	elapsed := time.Since(began)
	sum := s.stop(workers)
	s.restore()
	after := s.measure()
	s.report(sum, elapsed, s.reloads[first:])
	after.compare(t, before)
}

func (s *stress) prepare() {
	s.h = newHost(s.t, options{config: "log: {maxBytes: 4194304, keep: 4}\ncapacity: {ringBytes: 16777216, globNodes: 65536}\n"})
	s.admin = control.NewAdminClient(s.h.socket)
	for i := range s.ports {
		s.ports[i] = acceptAll(s.t)
	}
	var err error
	s.binary, err = os.Executable()
	must(s.t, err)
	for i := range s.sessions {
		write(s.t, filepath.Join(s.own(i), "kept"), "kept\n")
	}
	write(s.t, filepath.Join(s.h.dir, "secret/kept"), "secret\n")
	s.restore()
}

// acceptAll accepts connections on a free port and closes them.
func acceptAll(t *testing.T) int {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *stress) own(i int) string { return filepath.Join(s.h.work, strconv.Itoa(i)) }

func agentOf(i int) string { return fmt.Sprintf("stress-%d", i) }

// constant is the policy of an agent that never changes: all verdicts that are
// checked come of it.
func (s *stress) constant(i int) string {
	return fmt.Sprintf(`apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: constant-%d}
spec:
  subject: {spiffeID: %s}
  presets: [runtime, shell]
  files:
    - {path: %s, allow: [read, execute]}
    - {path: %s, allow: [read, write, create, delete]}
  network:
    - {allow: connect, ip: 127.0.0.1, ports: [%d]}
`, i, agentOf(i), s.binary, s.own(i), s.ports[0])
}

// changing is one of the many others about the agents. In every second version it
// opens the toggled port.
func (s *stress) changing(i, version int) string {
	toggle := ""
	if version%2 == 1 {
		toggle = fmt.Sprintf("    - {allow: connect, ip: 127.0.0.1, ports: [%d]}\n", s.ports[2])
	}
	return fmt.Sprintf(`apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: changing-%d}
spec:
  subject: {spiffeID: %s}
  files:
    - {path: /srv/%d/%d, allow: [read]}
    - {path: "/srv/%d/%d/*.key", deny: [read]}
  network:
    - {allow: connect, cidr: 10.%d.%d.0/24, ports: [%d]}
%s`, i, agentOf(i%s.sessions), i, version, i, version, i/250%250, i%250, 1024+version%1000, toggle)
}

// restore puts in force what is at the beginning and at the end.
func (s *stress) restore() {
	var b strings.Builder
	for i := range s.sessions {
		b.WriteString(s.constant(i) + "---\n")
	}
	for i := range s.policies - s.sessions {
		b.WriteString(s.changing(i, 0) + "---\n")
	}
	s.apply("all.yaml", b.String(), true)
}

func (s *stress) apply(name, text string, replace bool) {
	s.t.Helper()
	answer, err := s.admin.ApplyPolicies(context.Background(), rpc.NewRequest(&controlv1.ApplyPoliciesRequest{
		Files: []*controlv1.PolicyFile{{Name: name, Content: []byte(text)}}, AcceptDegraded: true, Replace: replace,
	}))
	if err != nil {
		s.t.Fatalf("apply: %v", err)
	}
	if answer.Msg.Generation == 0 {
		s.t.Fatalf("not applied: %v", answer.Msg.Problems[0])
	}
}

// reload changes one policy: of each agent in turn, one after the other.
func (s *stress) reload() {
	s.version++
	began := time.Now()
	i := s.version % (s.policies - s.sessions)
	s.apply(fmt.Sprintf("%d.yaml", i), s.changing(i, 1+s.version/s.sessions), false)
	s.reloads = append(s.reloads, time.Since(began))
}

// warmUp does what is done later, until what is kept on purpose (the last
// generations, sessions that have ended) has been filled.
func (s *stress) warmUp() {
	workers := s.start(s.sessions)
	for range 70 {
		s.reload()
	}
	s.stop(workers)
	s.restore()
}

// start starts a session of each agent and returns when all have begun to work.
func (s *stress) start(n int) (workers []*worker) {
	for i := range n {
		load, err := json.Marshal(&workload{
			Own: s.own(i), Others: s.own((i + 1) % s.sessions), Secret: filepath.Join(s.h.dir, "secret"),
			Allowed: s.ports[0], Denied: s.ports[1], Toggled: s.ports[2], Pause: s.pause,
		})
		must(s.t, err)
		w := &worker{}
		w.cmd, _ = s.h.prepareRun(agentOf(i), s.binary)
		w.cmd.Env = append(w.cmd.Env, stressVariable+"="+string(load))
		w.cmd.Stdout, w.cmd.Stderr = &w.out, &w.errors
		w.stdin, err = w.cmd.StdinPipe()
		must(s.t, err)
		must(s.t, w.cmd.Start())
		if workers = append(workers, w); i%atOnce == atOnce-1 || i == n-1 {
			s.running(workers)
		}
	}
	return workers
}

// atOnce is how many sessions start at the same time: what is under stress is what
// they do, and a launcher waits no longer than a user would.
const atOnce = 8

func (s *stress) running(workers []*worker) {
	s.t.Helper()
	began := eventually(5*time.Minute, func() bool {
		if i := slices.IndexFunc(workers, func(w *worker) bool { return !alive(w.cmd) }); i >= 0 {
			s.t.Fatalf("session %d ended: %s", i, &workers[i].errors)
		}
		return s.count() == len(workers)
	})
	if !began {
		s.t.Fatal("not all sessions have started")
	}
}

// count returns how many of the stress run's own sessions the daemon knows to run.
func (s *stress) count() (n int) {
	for name, value := range s.h.scrapeAll(s.t) {
		if strings.HasPrefix(name, `bailiff_sessions{agent="spiffe://local/agent/stress-`) {
			n += int(value)
		}
	}
	return n
}

// worker is a session that works.
type worker struct {
	cmd         *exec.Cmd
	stdin       io.WriteCloser
	out, errors logBuffer
}

// stop ends the sessions and adds up what they say.
func (s *stress) stop(workers []*worker) (sum workload) {
	for _, w := range workers {
		must(s.t, w.stdin.Close())
	}
	for i, w := range workers {
		if err := w.cmd.Wait(); err != nil {
			s.t.Fatalf("session %d: %v\n%s", i, err, &w.errors)
		}
		var one workload
		if err := json.Unmarshal([]byte(w.out.String()), &one); err != nil {
			s.t.Fatalf("session %d: %v\n%s", i, err, &w.out)
		}
		sum.add(i, &one)
	}
	if !eventually(time.Minute, func() bool { return s.count() == 0 }) {
		s.t.Error("sessions that have ended are listed")
	}
	return sum
}

func (w *workload) add(i int, one *workload) {
	w.Rounds, w.Forks, w.Opens, w.Connects = w.Rounds+one.Rounds, w.Forks+one.Forks, w.Opens+one.Opens, w.Connects+one.Connects
	w.ToggledAllowed, w.ToggledDenied, w.Wrong = w.ToggledAllowed+one.ToggledAllowed, w.ToggledDenied+one.ToggledDenied, w.Wrong+one.Wrong
	for _, example := range one.Examples {
		w.Examples = append(w.Examples, fmt.Sprintf("session %d: %s", i, example))
	}
}

// report says what was done, and fails the test for any wrong verdict.
func (s *stress) report(sum workload, elapsed time.Duration, reloads []time.Duration) {
	slices.Sort(reloads)
	s.t.Logf("%d sessions, %d policies, %v: %d changes of policies, one each %v (each took %v, the longest %v)",
		s.sessions, s.policies, elapsed.Round(time.Second), len(reloads), (elapsed / time.Duration(len(reloads))).Round(time.Millisecond),
		reloads[len(reloads)/2].Round(time.Millisecond), reloads[len(reloads)-1].Round(time.Millisecond))
	s.t.Logf("%d rounds: %d opens, %d connects, %d shells; the toggled port was open %d times, closed %d times",
		sum.Rounds, sum.Opens, sum.Connects, sum.Forks, sum.ToggledAllowed, sum.ToggledDenied)
	if sum.Wrong > 0 {
		s.t.Errorf("%d verdicts were wrong:\n%s", sum.Wrong, strings.Join(sum.Examples[:min(20, len(sum.Examples))], "\n"))
	}
	if sum.ToggledDenied == 0 || len(reloads) > 2*s.sessions && sum.ToggledAllowed == 0 {
		s.t.Error("the changes did not come into force")
	}
}
