// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// Sessions whose processes have another root than the host. Their prober starts
// unconfined, since it could not be executed in there: its first thread, which
// makes all the accesses, is labelled later.

// chrooted starts a session in a directory that has been furnished.
func (k *kernel) chrooted(t *testing.T, dir string) *confined {
	t.Helper()
	cmd := exec.Command("/prober")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir}
	cmd.Dir = "/"
	return k.confine(t, cmd, func(cmd *exec.Cmd) int { return cmd.Process.Pid })
}

// contained starts a session in a container whose root is a furnished directory.
func (k *kernel) contained(t *testing.T, root string) *confined {
	t.Helper()
	kerneltest.RequireTool(t, "runc")
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), containerConfig(t, bundle, root), 0o644); err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(bundle, "pid")
	name := fmt.Sprint("bailiff-test-", os.Getpid())
	cmd := exec.Command("runc", "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, "--pid-file", pidFile, name)
	s := k.confine(t, cmd, func(*exec.Cmd) int {
		text, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	})
	t.Cleanup(func() { // before the session's end, which kills only what it started: runc
		if output, err := exec.Command("runc", "--root", filepath.Join(bundle, "state"), "delete", "--force", name).CombinedOutput(); err != nil {
			t.Errorf("runc delete: %v\n%s", err, output)
		}
	})
	return s
}

// containerConfig is what runc itself proposes, with the prober as the command.
func containerConfig(t *testing.T, bundle, root string) []byte {
	t.Helper()
	spec := exec.Command("runc", "spec")
	spec.Dir = bundle
	if output, err := spec.CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v\n%s", err, output)
	}
	text, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bundle, "config.json")); err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	// As root as the other probers are, and in the same network.
	every := []string{"CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_FSETID"}
	process := config["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/prober"}
	process["env"] = []string{probeVariable + "=1"}
	process["capabilities"] = map[string]any{"bounding": every, "effective": every, "permitted": every}
	config["root"] = map[string]any{"path": root, "readonly": false}
	linux := config["linux"].(map[string]any)
	linux["namespaces"] = []map[string]string{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}}
	config["mounts"] = []map[string]any{{"destination": "/proc", "type": "proc", "source": "proc"}}
	text, err = json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// confine starts a command that becomes a prober, and confines the process that
// pid finds once it has answered.
func (k *kernel) confine(t *testing.T, cmd *exec.Cmd, pid func(*exec.Cmd) int) *confined {
	t.Helper()
	k.sessions++
	s := &confined{t: t, k: k, cgroup: filepath.Join(k.options.Cgroup, fmt.Sprint("s", k.sessions)), cmd: cmd, pidfd: -1}
	if err := os.Mkdir(s.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.cgroup, &st); err != nil {
		t.Fatal(err)
	}
	number, err := k.AgentNumber(testSubject, testSubject)
	if err != nil {
		t.Fatal(err)
	}
	s.info = Session{ID: 1000 + k.sessions, Cgroup: st.Ino, Agent: number}
	cmd.Env = append(os.Environ(), probeVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = json.NewEncoder(in), json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	s.receive()
	process := pid(cmd)
	if s.pidfd, err = unix.PidfdOpen(process, 0); err != nil {
		t.Fatal(err)
	}
	if err := k.AddSession(s.info); err != nil {
		t.Fatal(err)
	}
	if err := k.Label(s.pidfd, s.info); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.cgroup, "cgroup.procs"), fmt.Append(nil, process), 0); err != nil {
		t.Fatal(err)
	}
	k.told(t, time.Millisecond)
	return s
}
