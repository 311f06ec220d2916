// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"os"
	"os/user"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestResolveIdentity(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("no user nobody here")
	}
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		name   string
		flag   string
		euid   int
		getenv func(string) string
		want   string // UID NAME HOME; "-" for none; "!" and the error
	}{
		{"caller", "", 1000, env("SUDO_UID", "5"), "-"},
		{"root", "", 0, env(), "-"},
		{"sudo by root", "", 0, env("SUDO_UID", "0"), "-"},
		{"sudo", "", 0, env("SUDO_UID", nobody.Uid), nobody.Uid + " nobody " + nobody.HomeDir},
		{"sudo from a directory", "", 0, env("SUDO_UID", "543210", "SUDO_GID", "7", "SUDO_USER", "ldap", "SUDO_HOME", "/h"), "543210 ldap /h"},
		{"bad sudo", "", 0, env("SUDO_UID", "x"), "!say --user"},
		{"flag", "nobody", 0, env("SUDO_UID", "5"), nobody.Uid + " nobody " + nobody.HomeDir},
		{"number", nobody.Uid, 0, env(), nobody.Uid + " nobody " + nobody.HomeDir},
		{"flag without root", "nobody", 1000, env(), "!only root"},
		{"unknown", "no-such-user", 0, env(), "!no such user"},
	} {
		id, err := ResolveIdentity(tt.flag, tt.euid, tt.getenv)
		got := "-"
		if err != nil {
			got = "!" + err.Error()
		} else if id != nil {
			got = itoa(id.UID) + " " + id.Name + " " + id.Home
		}
		if got != tt.want && !(tt.want[0] == '!' && got[0] == '!' && strings.Contains(got, tt.want[1:])) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRunsAsTheInvokingUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to change the user")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("no user nobody here")
	}
	d := newDaemon(t)
	self := makeReachable(t)
	cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; env | grep -c SUDO; grep CapEff /proc/self/status"}})
	cmd.Path, cmd.Args[0] = self, self
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/root", "USER=root", "SUDO_USER=nobody", "SUDO_UID=" + nobody.Uid, "SUDO_GID=" + nobody.Gid}
	r := finish(t, cmd)
	want := nobody.Uid + "\n" + nobody.Gid + "\n" + nobody.Gid + "\n" + nobody.HomeDir + " nobody nobody\n0\nCapEff:\t0000000000000000\n"
	if r.stdout != want {
		t.Errorf("got %+v, want %q", r, want)
	}
	// The daemon authorises the caller and sees that the command's user is
	// another.
	if l := d.last(t); l.peer.Uid != 0 || l.uid != nobody.Uid {
		t.Errorf("the peer is user %d and runs as %s, want the caller and nobody", l.peer.Uid, l.uid)
	}
}

// TestLandlockOutOfReach: what the user can't reach anyway is no obstacle.
func TestLandlockOutOfReach(t *testing.T) {
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root, to become the user nobody")
	}
	closed := t.TempDir()
	if err := os.Mkdir(closed+"/inner", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	d := landlocked(t, map[string]uint32{closed + "/inner": accessRead})
	self := makeReachable(t)
	cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", "echo ran; cat /etc/passwd"}})
	cmd.Path, cmd.Args[0] = self, self
	cmd.Env = []string{"PATH=/usr/bin:/bin", "SUDO_USER=nobody", "SUDO_UID=" + nobody.Uid, "SUDO_GID=" + nobody.Gid}
	if r := finish(t, cmd); r.stdout != "ran\n" || r.code == 0 || strings.Contains(r.stderr, closed) {
		t.Errorf("got %+v", r)
	}
}

// makeReachable copies the test binary to where another user can run it.
func makeReachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := dir + "/launch.test"
	if err := os.WriteFile(file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}
