// SPDX-License-Identifier: Apache-2.0

package kerneltest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The guest exists to run LSM programs: there a skip would hide a broken guest.
func TestFullTier(t *testing.T) {
	if !InVM() {
		RequireFullTier(t)
	}
	if err := lsmRuns(); err != nil {
		t.Fatal(err)
	}
}

func TestCgroup(t *testing.T) {
	RequireRoot(t)
	var directory string
	var sleeper *exec.Cmd
	t.Run("made", func(t *testing.T) {
		directory = Cgroup(t)
		child := filepath.Join(directory, "child")
		if err := os.Mkdir(child, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(child, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		sleeper = exec.Command("sleep", "60")
		sleeper.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
		if err := sleeper.Start(); err != nil {
			t.Fatal(err)
		}
	})
	if err := sleeper.Wait(); err == nil {
		t.Error("the process in the cgroup was not killed")
	}
	if _, err := os.Stat(directory); !os.IsNotExist(err) {
		t.Errorf("the cgroup is still there: %v", err)
	}
}

func TestNetNS(t *testing.T) {
	RequireRoot(t)
	before := namespace(t)
	t.Run("inside", func(t *testing.T) {
		NetNS(t)
		if namespace(t) == before {
			t.Error("still in the old namespace")
		}
		interfaces, err := net.Interfaces()
		if err != nil || len(interfaces) != 1 || interfaces[0].Flags&net.FlagUp == 0 {
			t.Errorf("interfaces: %v %v, want loopback alone, up", interfaces, err)
		}
	})
	if after := namespace(t); after != before {
		t.Errorf("namespace %s, want %s again", after, before)
	}
}

func namespace(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDirectories(t *testing.T) {
	tests := []struct {
		name  string
		make  func(testing.TB) string
		magic int64
	}{
		{"tmpfs", TmpfsDir, unix.TMPFS_MAGIC},
		{"ext4", Ext4Dir, unix.EXT4_SUPER_MAGIC},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stat unix.Statfs_t
			if err := unix.Statfs(test.make(t), &stat); err != nil {
				t.Fatal(err)
			}
			if int64(stat.Type) != test.magic {
				t.Errorf("file system type %#x, want %#x", stat.Type, test.magic)
			}
		})
	}
}

// recorder stands in for a test that RequireTool ends.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper() {}
func (r *recorder) Skipf(format string, arguments ...any) {
	r.skipped = arguments[len(arguments)-1].(string)
}
func (r *recorder) Fatalf(format string, arguments ...any) {
	r.failed = arguments[len(arguments)-1].(string)
}

func TestRequireTool(t *testing.T) {
	for _, ci := range []string{"", "true"} {
		t.Setenv("CI", ci)
		result := &recorder{TB: t}
		RequireTool(result, "sh", "no-such-tool")
		if got := result.skipped; ci == "" && !strings.Contains(got, "no-such-tool") {
			t.Errorf("skipped with %q", got)
		}
		if got := result.failed; ci == "true" && !strings.Contains(got, "no-such-tool") {
			t.Errorf("failed with %q", got)
		}
	}
}
