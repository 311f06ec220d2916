// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/kerneltest"
)

// nextBuild returns a bailiffd that is another build of the same.
func nextBuild(t *testing.T, dir string) string {
	t.Helper()
	if kerneltest.InVM() {
		built, err := filepath.Abs("../build/guest/next/bailiffd")
		must(t, err)
		return built
	}
	next := filepath.Join(dir, "next-bailiffd")
	build := exec.Command("go", "build", "-ldflags", "-X main.version=next", "-o", next, "../cmd/bailiffd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the next bailiffd: %v\n%s", err, out)
	}
	return next
}

// hammer is a session that tries what it may and what it may not, over and over.
type hammer struct{ *prompt }

func (h *host) hammer(t *testing.T) *hammer {
	t.Helper()
	port := func() string {
		address := serve(t, "tcp", "127.0.0.1:0")
		return address[strings.LastIndexByte(address, ':')+1:]
	}
	open, shut := port(), port()
	h.enforce(t, simplePolicy+"  network: [{allow: connect, ip: 127.0.0.1, ports: ["+open+"]}]\n")
	p := h.prompt(t, "worker")
	// One line: the shell of the session reads lines, and the next one ends the
	// loop. Wrong answers are named.
	_, err := p.in.Write([]byte(h.expand(fmt.Sprintf(`n=0; wrong=; until read -r -t 0.0%d; do n=$((n+1)); `+
		`read -r x < %%DIR%%/home/.ssh/id_ed25519 && wrong="$wrong open:$n"; `+
		`echo x > %%WORK%%/file || wrong="$wrong write:$n"; `+
		`true 3<>/dev/tcp/127.0.0.1/%s && wrong="$wrong connect:$n"; `+
		`true 3<>/dev/tcp/127.0.0.1/%s || wrong="$wrong refused:$n"; `+
		`done 2>/dev/null; echo "$n,$wrong"`, kerneltest.Often(1, 1, 3), shut, open)) + "\n"))
	must(t, err)
	return &hammer{p}
}

// stop returns how often the session tried, and what came out wrong.
func (x *hammer) stop(t *testing.T) (rounds int, wrong string) {
	t.Helper()
	_, err := x.in.Write([]byte("\n"))
	must(t, err)
	line, err := x.out.ReadString('\n')
	must(t, err)
	x.end()
	count, wrong, _ := strings.Cut(strings.TrimSpace(line), ",")
	rounds, err = strconv.Atoi(count)
	must(t, err)
	return rounds, wrong
}

// testUpgrade goes from one build to another and back under a session that never stops.
func testUpgrade(t *testing.T, h *host) {
	write(t, filepath.Join(h.dir, "home/.ssh/id_ed25519"), "secret\n")
	builds := [2]string{h.daemonPath, nextBuild(t, h.dir)}
	defer func() { h.daemonPath = builds[0] }()
	if times := kerneltest.Often(10, 4, 0); times > 0 {
		t.Run("stopped", func(t *testing.T) { testUpgradeStopped(t, h, builds, times) })
	}
	t.Run("killed", func(t *testing.T) { testUpgradeKilled(t, h, builds, kerneltest.Often(30, 10, 1)) })
}

// testUpgradeStopped stops one build and starts the other.
func testUpgradeStopped(t *testing.T, h *host, builds [2]string, times int) {
	x := h.hammer(t)
	since := len(h.log.String())
	for i := range times {
		h.daemonPath = builds[(i+1)%2]
		if code := h.stop(t, syscall.SIGTERM); code != 0 {
			t.Errorf("bailiffd ended with status %d", code)
		}
		h.start(t)
		if list := h.bailiff(t, "sessions", "list").ok(t).stdout; !strings.Contains(list, x.id) {
			t.Errorf("the session is not listed:\n%s", list)
		}
	}
	if n := strings.Count(h.log.String()[since:], "have taken over"); n != times {
		t.Errorf("%d builds have taken over, not %d", n, times)
	}
	h.onlyOnePinned(t)
	x.check(t, fmt.Sprintf("%d upgrades", times))
}

// testUpgradeKilled kills daemons of both builds while they take over from each other.
func testUpgradeKilled(t *testing.T, h *host, builds [2]string, kills int) {
	x := h.hammer(t)
	h.stop(t, syscall.SIGTERM)
	for i := range kills {
		h.daemonPath = builds[rand.N(2)]
		if kills == 1 {
			h.daemonPath = builds[1]
		}
		c := h.daemon()
		began := time.Now()
		must(t, c.Start())
		time.Sleep(time.Duration(float64(h.took) * 1.3 * (float64(i) + rand.Float64()) / float64(kills)))
		must(t, c.Process.Kill())
		if _ = c.Wait(); c.ProcessState.Exited() {
			t.Fatalf("bailiffd ended by itself within %v: status %d", time.Since(began), c.ProcessState.ExitCode())
		}
	}
	h.start(t)
	h.onlyOnePinned(t)
	x.check(t, fmt.Sprintf("%d kills", kills))
}

// onlyOnePinned waits until what was replaced is gone.
func (h *host) onlyOnePinned(t *testing.T) {
	t.Helper()
	var pins []string
	if !eventually(time.Minute, func() bool {
		pins, _ = filepath.Glob("/sys/fs/bpf/" + filepath.Base(h.dir) + "/*")
		return len(pins) == 1
	}) {
		t.Errorf("pins: %v", pins)
	}
}

// check ends the session, and compares what it saw and what the log tells of it:
// one record of each denied open and each denied connection.
func (x *hammer) check(t *testing.T, through string) {
	t.Helper()
	rounds, wrong := x.stop(t)
	t.Logf("%d rounds through %s", rounds, through)
	if wrong != "" || rounds == 0 {
		t.Errorf("in %d rounds through %s these were wrong:%s", rounds, through, wrong)
	}
	opens, connects := 0, 0
	time.Sleep(2500 * time.Millisecond) // until the last repeats are told
	for _, ev := range x.events(t) {
		switch {
		case ev.Kind != audit.Action || ev.Verdict != "deny":
		case strings.HasSuffix(describe(&ev), "/home/.ssh/id_ed25519"):
			opens += int(max(ev.Count, 1))
		case ev.Operation == "connect":
			connects += int(max(ev.Count, 1))
		}
	}
	if h := x.host; connects != rounds || h.full && opens != rounds {
		t.Errorf("in %d rounds through %s the log tells of %d denied opens and %d denied connections; %v events were lost",
			rounds, through, opens, connects, h.status(t)["dropped"])
	}
}

// testRemove takes everything off while a session runs, and is refused where it must be.
func testRemove(t *testing.T, h *host) {
	h.enforce(t, simplePolicy+"    - {path: %DIR%, allow: [read, write, execute]}\n"+
		"    - {path: "+h.bin+", allow: [read, execute]}\n")
	finish(t, h.daemon("--remove")).ended(t, 1).says(t, "first stop the daemon")
	inside := h.run(t, "worker", h.daemonPath, "--config", h.config, "--remove")
	inside.ended(t, 1).says(t, "outside of any session")
	p, path := h.prompt(t, "worker"), h.status(t)["cgroup"].(string)
	h.stop(t, syscall.SIGTERM)
	if out := finish(t, h.daemon("--remove")).ok(t).stdout; !strings.Contains(out, "1 session was ended") {
		t.Errorf("it says %q", out)
	}
	if code := p.end(); code != 128+int(syscall.SIGKILL) && code != -1 {
		t.Errorf("the session ended with status %d", code)
	}
	for _, path := range []string{"/sys/fs/bpf/" + filepath.Base(h.dir), path, h.socket} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if kerneltest.Often(1, 1, 0) > 0 {
		h.start(t)
		h.enforce(t, simplePolicy)
		h.prompt(t, "worker").confined(t, "after everything was removed")
	}
}
