// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	chown  = 1 << unix.CAP_CHOWN
	setuid = 1 << unix.CAP_SETUID
	setgid = 1 << unix.CAP_SETGID
	port   = 1 << unix.CAP_NET_BIND_SERVICE
)

// printSets prints "CapInh CapPrm CapEff CapBnd CapAmb" of a shell, of a program
// that it execs, and of one that this execs.
const printSets = `e='s/^Cap...:[[:blank:]]*0*\([0-9a-f]\)/\1/p'; export e
sed -n "$e" /proc/$$/status | xargs; sed -n "$e" /proc/self/status | xargs; sh -c 'sed -n "$e" /proc/self/status | xargs'`

func sets(inheritable, effective, bounding, ambient uint64) string {
	line := fmt.Sprintf("%x %x %x %x %x\n", inheritable, effective, effective, bounding, ambient)
	return strings.Repeat(line, 3)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, which has capabilities to lose")
	}
}

func TestRootKeepsNothing(t *testing.T) {
	needRoot(t)
	d := newDaemon(t)
	file := filepath.Join(t.TempDir(), "others")
	must(t, os.WriteFile(file, []byte("text"), 0o600))
	must(t, os.Chown(file, 65534, 65534))
	if r := d.shell(t, printSets); r.stdout != sets(0, 0, 0, 0) || r.code != 0 {
		t.Errorf("got %+v", r)
	}
	for _, script := range []string{
		"cat " + file,                              // DAC_READ_SEARCH
		"echo x >> " + file,                        // DAC_OVERRIDE
		"chmod 666 " + file,                        // FOWNER
		"chown 0 " + file,                          // CHOWN
		"mknod " + file + ".device c 1 3",          // MKNOD
		"ulimit -c 2",                              // SYS_RESOURCE
		"cp /bin/true t && chown 65534 ./t",        // its own file
		"setpriv --reuid 65534 --keep-groups true", // SETUID
	} {
		if r := d.shell(t, "cd "+filepath.Dir(file)+" && "+script); r.code == 0 || r.stderr == "" {
			t.Errorf("%s: %+v", script, r)
		}
	}
	if r := d.shell(t, "cd "+filepath.Dir(file)+" && echo own > own && chmod 700 own && mv own other && cat other"); r.stdout != "own\n" {
		t.Errorf("its own file: %+v", r)
	}
}

// TestNothingIsGainedByAProgram: a program of root's with the set-user-ID bit, or
// with capabilities of its own, is a way to those of its file for nobody.
func TestNothingIsGainedByAProgram(t *testing.T) {
	needRoot(t)
	d := newDaemon(t)
	program := makeReachable(t)
	must(t, os.Chmod(program, 0o4755))
	for name, value := range map[string][]byte{
		"set-user-ID":  nil,
		"capabilities": {1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, // version 2, effective: CHOWN
	} {
		if value != nil {
			must(t, unix.Setxattr(program, "security.capability", value, 0))
		}
		for _, user := range []string{"root", "nobody"} {
			cmd := d.parent(t, Options{User: user, Command: []string{program, probeMode, "free", "capabilities"}})
			self := makeReachable(t)
			cmd.Path, cmd.Args[0] = self, self
			// With a capability that the program can't be given, the kernel may also
			// refuse to run it.
			if r := finish(t, cmd); r.stdout != "0\n" && r.code != 126 {
				t.Errorf("%s, as %s: %+v", name, user, r)
			}
		}
	}
}

func TestRootKeepsWhatIsNamed(t *testing.T) {
	needRoot(t)
	d := newDaemon(t)
	d.answer.Capabilities = chown
	if r := d.shell(t, printSets); r.stdout != sets(chown, chown, chown, 0) {
		t.Errorf("got %+v", r)
	}
	script := "umask 077; cd " + t.TempDir() + " && echo 1 > f && chown 65534:65534 f && stat -c %u:%g f && ! cat f"
	if r := d.shell(t, script); r.stdout != "65534:65534\n" || r.code != 0 || r.stderr == "" {
		t.Errorf("chown, and no more: %+v", r)
	}
	// A user that root becomes has nothing of it.
	d.answer.Capabilities = setuid | setgid
	if r := d.shell(t, "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'id -u; grep -E \"Cap(Prm|Eff|Amb)\" /proc/self/status | tr -d \"\\n\"'"); r.stdout != "65534\nCapPrm:\t0000000000000000CapEff:\t0000000000000000CapAmb:\t0000000000000000" {
		t.Errorf("after a change of user: %+v", r)
	}
}

// TestOrdinaryUserGainsNothing: a policy gives nothing that the user lacks.
func TestOrdinaryUserGainsNothing(t *testing.T) {
	needRoot(t)
	d := newDaemon(t)
	d.answer.Capabilities = ^uint64(0)
	self := makeReachable(t)
	nobody, err := user.Lookup("nobody")
	must(t, err)
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	for p := d.socket; p != "/tmp"; p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o777))
	}
	started := func(ambient ...uintptr) result {
		cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", printSets}})
		cmd.Path, cmd.Args[0], cmd.Dir = self, self, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, AmbientCaps: ambient}
		return finish(t, cmd)
	}
	bounding, err := boundingSet()
	must(t, err)
	if r := started(); r.stdout != sets(0, 0, bounding, 0) {
		t.Errorf("without any: %+v", r)
	}
	// What somebody was given on purpose is kept where the policy says so.
	d.answer.Capabilities = port | setuid
	if r := started(unix.CAP_CHOWN, unix.CAP_NET_BIND_SERVICE); r.stdout != sets(port, port, bounding, port) {
		t.Errorf("with ambient ones: %+v", r)
	}
	// Under sudo root is gone before the session begins.
	cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", printSets}})
	cmd.Path, cmd.Args[0] = self, self
	cmd.Env = append(os.Environ(), "SUDO_USER=nobody", "SUDO_UID="+nobody.Uid, "SUDO_GID="+nobody.Gid)
	if r := finish(t, cmd); r.stdout != sets(0, 0, 0, 0) {
		t.Errorf("under sudo: %+v", r)
	}
}

// TestRootOfOddKinds: without CAP_SETPCAP the bounding set stays, and with
// SECBIT_NOROOT an exec gives user 0 nothing by itself.
func TestRootOfOddKinds(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("setpriv is missing")
	}
	bounding, err := boundingSet()
	must(t, err)
	bounding &^= 1 << unix.CAP_SETPCAP
	d := newDaemon(t)
	under := func(flags ...string) result {
		cmd := d.parent(t, Options{Command: []string{"/bin/sh", "-c", printSets}})
		cmd.Args = append(append([]string{"setpriv"}, flags...), append([]string{cmd.Path}, cmd.Args[1:]...)...)
		cmd.Path, _ = exec.LookPath("setpriv")
		return finish(t, cmd)
	}
	if r := under("--bounding-set", "-setpcap"); r.stdout != sets(0, 0, bounding, 0) {
		t.Errorf("without SETPCAP, nothing named: %+v", r)
	}
	d.answer.Capabilities = chown
	if r := under("--bounding-set", "-setpcap"); r.stdout != sets(chown, chown, bounding, 0) {
		t.Errorf("without SETPCAP: %+v", r)
	}
	if r := under("--securebits", "+noroot", "--inh-caps", "+chown,+setpcap", "--ambient-caps", "+chown,+setpcap"); r.stdout != sets(chown, chown, chown, chown) {
		t.Errorf("with NOROOT: %+v", r)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
