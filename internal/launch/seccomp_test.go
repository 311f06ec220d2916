// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestFilterProgram runs the program without a kernel, also for the other
// machine.
func TestFilterProgram(t *testing.T) {
	const allow = unix.SECCOMP_RET_ALLOW
	refuse := func(errno uint32) int { return int(unix.SECCOMP_RET_ERRNO | errno) }
	rules := []callRule{
		{call: 10, errno: 1},
		{call: 20, errno: 2, when: []match{
			{arg: 0, op: oneOf, mask: 0xf, values: []uint32{1, 2, 3}},
			{arg: 1, op: noneOf, mask: ^uint32(0), values: []uint32{7, 8}}}},
		{call: 20, errno: 3, when: []match{{arg: 5, op: anyBits, mask: 0x30}}},
	}
	for _, tt := range []struct {
		arch, foreign, call uint32
		args                [6]uint32
		want                int
	}{
		{1, 0, 10, [6]uint32{}, refuse(1)},
		{1, 0, 11, [6]uint32{}, allow},
		{2, 0, 11, [6]uint32{}, refuse(uint32(unix.ENOSYS))},
		{1, 100, 99, [6]uint32{}, allow},
		{1, 100, 110, [6]uint32{}, refuse(uint32(unix.ENOSYS))},
		{1, 100, ^uint32(0), [6]uint32{}, refuse(uint32(unix.ENOSYS))},
		{1, 0, 20, [6]uint32{1, 6}, refuse(2)},
		{1, 0, 20, [6]uint32{0xf3, 9}, refuse(2)},
		{1, 0, 20, [6]uint32{4, 6}, allow},
		{1, 0, 20, [6]uint32{2, 7}, allow},
		{1, 0, 20, [6]uint32{2, 8}, allow},
		{1, 0, 20, [6]uint32{2, 8, 0, 0, 0, 0x10}, refuse(3)},
		{1, 0, 20, [6]uint32{0, 0, 0, 0, 0, 0x4f}, allow},
	} {
		if got := runFilter(t, assembleFilter(1, tt.foreign, rules), tt.arch, tt.call, tt.args); got != tt.want {
			t.Errorf("%+v: got %#x", tt, got)
		}
	}
}

// runFilter lays struct seccomp_data out as the BPF machine for packets reads
// it: each word in network order.
func runFilter(t *testing.T, prog []bpf.Instruction, arch, call uint32, args [6]uint32) int {
	t.Helper()
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[dataCall:], call)
	binary.BigEndian.PutUint32(data[dataArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[dataArgs+8*i:], a)
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRulesHaveReasons(t *testing.T) {
	for _, r := range callRules() {
		if r.name == "" || r.why == "" || r.errno == 0 {
			t.Errorf("incomplete: %+v", r)
		}
	}
}

func probing(t *testing.T, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{probeMode}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a call that gets through finds no terminal
	return finish(t, cmd)
}

func TestRefusedCalls(t *testing.T) {
	r := probing(t, "filtered", "calls")
	var want strings.Builder
	for _, c := range refusedCalls() {
		fmt.Fprintln(&want, c.name, int(c.errno))
	}
	if r.stdout != want.String() {
		t.Errorf("got\n%s%s\nwant\n%s", r.stdout, r.stderr, want.String())
	}
}

func TestNeighboursStillWork(t *testing.T) {
	for _, how := range []string{"free", "filtered"} {
		if r := probing(t, how, "neighbours"); r.code != 0 {
			t.Errorf("%s: %+v", how, r)
		}
	}
	d := newDaemon(t)
	for _, command := range [][]string{
		{"python3", "-c", "import threading, subprocess, socket, os\nt = threading.Thread(target=lambda: None); t.start(); t.join()\nsubprocess.check_call(['true'])\nsocket.getaddrinfo('localhost', 80)\nsocket.socketpair()\np = os.fork()\nif p == 0: os._exit(0)\nos.waitpid(p, 0)\nprint('done')"},
		{"node", "-e", "const fs = require('fs'); fs.promises.readFile('/etc/hostname').then(() => { const s = require('net').createServer().listen(0, '127.0.0.1', () => { s.close(); require('child_process').execFileSync('true'); new (require('worker_threads').Worker)('', {eval: true}); console.log('done') }) })"},
		{"bash", "-c", "sleep 0 & wait; cat <(echo done) | cat"},
	} {
		if _, err := exec.LookPath(command[0]); err != nil {
			continue
		}
		if r := d.run(t, Options{Command: command}); r.code != 0 || r.stdout != "done\n" {
			t.Errorf("%s: %+v", command[0], r)
		}
	}
}

// TestForeignABI calls the kernel through its 32-bit entry, where other
// numbers and an architecture of its own hold.
func TestForeignABI(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("int $0x80 is of x86")
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is missing: it makes a program that uses int $0x80")
	}
	dir := t.TempDir()
	source, program := filepath.Join(dir, "foreign.S"), filepath.Join(dir, "foreign")
	// exit(getpid() by int $0x80 == -ENOSYS ? 10 : 11), the exit natively.
	const text = ".globl _start\n_start:\n mov $20, %eax\n int $0x80\n mov $10, %edi\n cmp $-38, %eax\n je out\n mov $11, %edi\nout:\n mov $231, %eax\n syscall\n"
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-nostdlib", "-static", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	if free := finish(t, exec.Command(program)); free.code != 11 {
		t.Skipf("this kernel has no 32-bit calls: %+v", free)
	}
	if r := newDaemon(t).run(t, Options{Command: []string{program}}); r.code != 10 {
		t.Errorf("a 32-bit call got through: %+v", r)
	}
}
