// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// The programs are loaded once for all tests: detaching them takes seconds.
var shared struct {
	once sync.Once
	k    *kernel
	err  error
}

// kernel is the loaded programs, with a cgroup for sessions and a bpffs of their own.
type kernel struct {
	*Enforcer
	work     string // temporary directory
	options  Options
	reader   *Reader
	sessions uint64
	mounted  uint64 // file systems when apply told the programs of them
}

func TestMain(m *testing.M) {
	if os.Getenv(probeVariable) != "" {
		os.Exit(probe())
	}
	code := m.Run()
	if shared.k != nil {
		if err := shared.k.remove(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the programs:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func loadKernel(t testing.TB) (*kernel, error) {
	work, err := os.MkdirTemp("", "bailiff-test-")
	if err != nil {
		return nil, err
	}
	k := &kernel{work: work}
	pins := filepath.Join(work, "bpffs")
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		return nil, fmt.Errorf("mount bpffs: %w", err)
	}
	cgroup, err := os.MkdirTemp(kerneltest.CgroupRoot(t), "bailiff-test-")
	if err != nil {
		return nil, err
	}
	k.options = Options{
		PinDir: filepath.Join(pins, "bailiff"), Cgroup: cgroup, Level: 2, Full: true,
		Sizes: Sizes{RingBytes: 1 << 20}, Tell: Tell{Rate: 1 << 20, Burst: 1 << 20}, // tests flood
	}
	k.Enforcer, err = Load(k.options)
	if errors.Is(err, unix.EPERM) && !kerneltest.InVM() {
		k.options.Full = false
		k.Enforcer, err = Load(k.options)
	}
	if err != nil {
		return nil, err
	}
	k.reader, err = k.NewReader()
	return k, err
}

func (k *kernel) remove() error {
	return errors.Join(Remove(k.options.PinDir), k.reader.Close(), k.Close(),
		os.Remove(k.options.Cgroup),
		unix.Unmount(filepath.Dir(k.options.PinDir), unix.MNT_DETACH), os.RemoveAll(k.work))
}

// basic returns the loaded programs, on either tier.
func basic(t *testing.T) *kernel {
	t.Helper()
	kerneltest.RequireRoot(t)
	shared.once.Do(func() { shared.k, shared.err = loadKernel(t) })
	if shared.err != nil {
		t.Fatalf("load: %v", shared.err)
	}
	return shared.k
}

// full returns the loaded programs, and skips where LSM programs can't run.
func full(t *testing.T) *kernel {
	t.Helper()
	kerneltest.RequireFullTier(t)
	return basic(t)
}

// rules is a policy about agent a, as the lines of its sections.
type rules struct {
	mode           string // enforce where empty
	files, network []string
	guard          []string // files of a guardrail
	guardNetwork   []string
	// capabilities that a root session has; without it all: most tests are about
	// what holds besides
	capabilities *policy.Capabilities
}

const testSubject = "spiffe://local/agent/a"

func section(name string, lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "  " + name + ":\n    - " + strings.Join(lines, "\n    - ") + "\n"
}

// yaml returns the documents; the session may always run the test binary.
func (r rules) yaml() string {
	mode := r.mode
	if mode == "" {
		mode = "enforce"
	}
	self := fmt.Sprintf("{path: %s, allow: [read, execute]}", executable())
	text := "apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p}\nspec:\n  subject: {spiffeID: " +
		testSubject + "}\n  mode: " + mode + "\n" +
		section("files", append([]string{self}, r.files...)) + section("network", r.network)
	if len(r.guard)+len(r.guardNetwork) > 0 {
		text += "---\napiVersion: bailiff.dev/v1alpha1\nkind: Guardrail\nmetadata: {name: g}\nspec:\n  subjects: ['spiffe://local/*']\n" +
			section("files", r.guard) + section("network", r.guardNetwork)
	}
	return text
}

// executable is the test binary; a policy names it, so it has a true path.
func executable() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func compile(t testing.TB, text string) []*policy.Ruleset {
	t.Helper()
	docs, problems := policy.Parse("test.yaml", []byte(text))
	if err := problems.Err(); err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	sets, problems := policy.CompileAll(docs)
	if err := problems.Err(); err != nil {
		t.Fatalf("compile: %v\n%s", err, text)
	}
	return sets
}

// apply puts a policy in force for agent a and tells the programs of the mounts there are.
func (k *kernel) apply(t testing.TB, r rules) *policy.Ruleset {
	t.Helper()
	sets := compile(t, r.yaml())
	for _, set := range sets {
		capable(set, ^policy.Capabilities(0))
		if r.capabilities != nil {
			capable(set, *r.capabilities)
		}
	}
	if _, err := k.Apply(Set{Rulesets: sets, Agents: map[string]string{testSubject: testSubject}}); err != nil {
		t.Fatalf("apply: %v", err)
	}
	homes := mounts(t)
	if err := k.SetHomes(homes); err != nil {
		t.Fatalf("set homes: %v", err)
	}
	k.mounted = uint64(len(homes))
	return sets[0]
}

// capable changes the capabilities of what was compiled.
func capable(r *policy.Ruleset, c policy.Capabilities) {
	r.Capabilities = c
	r.Digest = sha256.Sum256(fmt.Appendf(r.Digest[:], "%d", c))
}

// mounts reads where whole filesystems are mounted, as the daemon does.
func mounts(t testing.TB) map[uint32][]string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	homes := map[uint32][]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		major, minor, _ := strings.Cut(fields[2], ":")
		hi, _ := strconv.ParseUint(major, 10, 32)
		lo, _ := strconv.ParseUint(minor, 10, 32)
		device := uint32(hi<<20 | lo)
		if _, seen := homes[device]; seen || fields[3] != "/" {
			continue
		}
		homes[device] = components(fields[4])
	}
	return homes
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// confined is a session with one process, which runs probes.
type confined struct {
	t      testing.TB
	k      *kernel
	info   Session
	agent  string
	cgroup string
	cmd    *exec.Cmd
	in     *json.Encoder
	out    *json.Decoder
	pidfd  int
}

// start applies a policy and starts a session under it.
func (k *kernel) start(t testing.TB, r rules) *confined {
	t.Helper()
	k.apply(t, r)
	return k.session(t, testSubject)
}

// session starts a session of an agent under the policy in force.
func (k *kernel) session(t testing.TB, agent string) *confined {
	t.Helper()
	s := k.prepare(t, agent)
	s.start(t)
	return s
}

// start makes the process that waits a session's.
func (s *confined) start(t testing.TB) {
	t.Helper()
	number, err := s.k.AgentNumber(s.agent, testSubject)
	if err != nil {
		t.Fatalf("number the agent: %v", err)
	}
	s.info.Agent = number
	s.join()
	s.release()
	s.k.told(t, time.Millisecond)
}

// prepare starts a process that waits, unconfined, for release.
func (k *kernel) prepare(t testing.TB, agent string) *confined {
	t.Helper()
	return k.prepareWith(t, agent, &syscall.SysProcAttr{})
}

// prepareWith does, as attr says; it has copies of the descriptors, from 3 on.
func (k *kernel) prepareWith(t testing.TB, agent string, attr *syscall.SysProcAttr, fds ...int) *confined {
	t.Helper()
	k.sessions++
	s := &confined{t: t, k: k, agent: agent, cgroup: filepath.Join(k.options.Cgroup, fmt.Sprint("s", k.sessions)), pidfd: -1}
	if err := os.Mkdir(s.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.cgroup, &st); err != nil {
		t.Fatal(err)
	}
	s.info = Session{ID: 1000 + k.sessions, Cgroup: st.Ino}
	// A shell has one thread: a label is put on one. It says when it has loaded
	// its libraries, and reads no further than the line.
	s.cmd = exec.Command("/bin/sh", "-c", `echo "{}" && read go && exec "$0"`, executable())
	// The runtime's signals would interrupt calls that a probe makes.
	s.cmd.Env = append(os.Environ(), probeVariable+"=1", "GODEBUG=asyncpreemptoff=1")
	s.cmd.Stderr = os.Stderr
	attr.PidFD = &s.pidfd
	s.cmd.SysProcAttr = attr
	for _, fd := range fds {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(own), "descriptor of the test")
		defer file.Close()
		s.cmd.ExtraFiles = append(s.cmd.ExtraFiles, file)
	}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = json.NewEncoder(in), json.NewDecoder(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	s.receive()
	return s
}

// join labels the process and puts it into the session's cgroup.
func (s *confined) join() {
	s.t.Helper()
	if err := s.k.AddSession(s.info); err != nil {
		s.t.Fatal(err)
	}
	if err := s.k.Label(s.pidfd, s.info); err != nil {
		s.t.Fatal(err)
	}
	s.enter(s.cgroup)
}

func (s *confined) enter(cgroup string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), fmt.Append(nil, s.cmd.Process.Pid), 0); err != nil {
		s.t.Fatal(err)
	}
}

// release lets the process become a prober.
func (s *confined) release() {
	s.t.Helper()
	if err := s.in.Encode("go"); err != nil {
		s.t.Fatal(err)
	}
	s.receive()
}

func (s *confined) end() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	unix.Close(s.pidfd)
	if err := s.k.RemoveSession(s.info.Cgroup); err != nil {
		s.t.Error(err)
	}
	kill := filepath.Join(s.cgroup, "cgroup.kill")
	if err := os.WriteFile(kill, []byte("1"), 0); err != nil {
		s.t.Error(err)
	}
	for range 500 {
		err := os.Remove(s.cgroup)
		if err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Errorf("cgroup %s can't be removed", s.cgroup)
}

func (s *confined) receive() result {
	s.t.Helper()
	var r result
	if err := s.out.Decode(&r); err != nil {
		s.t.Fatalf("the prober is gone: %v", err)
	}
	return r
}

// do runs one probe in the session.
func (s *confined) do(op string, args ...any) result {
	s.t.Helper()
	call := []string{op}
	for _, a := range args {
		call = append(call, fmt.Sprint(a))
	}
	if err := s.in.Encode(call); err != nil {
		s.t.Fatalf("%v: %v", call, err)
	}
	r := s.receive()
	if r.Broken != "" {
		s.t.Fatalf("%v: %s", call, r.Broken)
	}
	return r
}

// want runs a probe and compares its error; 0 is success.
func (s *confined) want(errno syscall.Errno, op string, args ...any) result {
	s.t.Helper()
	r := s.do(op, args...)
	if r.Errno != errno {
		s.t.Errorf("%s %q: %v, want %v", op, args, r.Errno, errno)
	}
	return r
}

func (s *confined) allowed(op string, args ...any) result {
	s.t.Helper()
	return s.want(0, op, args...)
}

// denied accepts what a denied file operation looks like.
func (s *confined) denied(op string, args ...any) {
	s.t.Helper()
	if r := s.do(op, args...); r.Errno != unix.EACCES && r.Errno != unix.EPERM {
		s.t.Errorf("%s %q: %v, want a denial", op, args, r.Errno)
	}
}

// events returns what was told since the last call, or the start of a session.
func (k *kernel) events(t testing.TB) []*Event {
	t.Helper()
	return k.told(t, 100*time.Millisecond)
}

func (k *kernel) told(t testing.TB, wait time.Duration) []*Event {
	t.Helper()
	var list []*Event
	for {
		ev, err := k.reader.Read(time.Now().Add(wait))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return list
		}
		if err != nil {
			t.Fatalf("read events: %v", err)
		}
		if err := k.reader.Commit(ev.Position); err != nil {
			t.Fatal(err)
		}
		list = append(list, ev)
	}
}
