// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/policy"
)

// Names of the workers that are no agents.
const (
	plainName    = "unconfined"
	landlockName = "landlock"
)

// fixture is everything that the rows share.
type fixture struct {
	place     place
	tree      string // a tmpfs
	rootTree  string // on the root's file system
	listeners []net.Listener
	port      int // of the server
	proxyPort int

	documents []string // texts of policies; the coding agent's first
	wanted    map[string]bool
	workers   map[string]*worker
	kernel    *enforcement
}

func newFixture(p place, policyFile string) (f *fixture, err error) {
	f = &fixture{place: p, wanted: map[string]bool{}, workers: map[string]*worker{}}
	if err := f.makeTrees(); err != nil {
		return f, err
	}
	if f.port, err = f.listen(serve); err != nil {
		return f, err
	}
	if f.proxyPort, err = f.listen(proxy); err != nil {
		return f, err
	}
	text, err := os.ReadFile(policyFile)
	if err != nil {
		return f, fmt.Errorf("read the policy: %w: name another with -policy", err)
	}
	adapted := strings.NewReplacer(
		"/srv/agent/work", f.tree, "/srv/agent/remote", f.rootTree,
		"[8080]", fmt.Sprintf("[%d, %d]", f.port, f.proxyPort), "git, python]", "git, python, go]",
	).Replace(string(text))
	f.documents = append(f.documents, adapted)
	return f, nil
}

// makeTrees: on an overlay root, inodes have no generation number and directories
// are not cached; so most of the work is on a tmpfs.
func (f *fixture) makeTrees() (err error) {
	if f.tree, err = os.MkdirTemp("/tmp", "bench-"); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", f.tree, "tmpfs", 0, "mode=755,size=50%"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w: run as root", err)
	}
	f.rootTree, err = os.MkdirTemp("/var", "bench-")
	return err
}

func (f *fixture) listen(answer func(net.Listener)) (port int, err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	f.listeners = append(f.listeners, l)
	go answer(l)
	return l.Addr().(*net.TCPAddr).Port, nil
}

// repeat scales how often a job is done: where the clock counts instructions,
// more than a few only take time.
func (f *fixture) repeat(native, counted int) int {
	if f.place.Instructions {
		return counted
	}
	return native
}

// file makes a file and the directories above it.
func (f *fixture) file(path, content string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(content), 0o644)
}

// each makes the n files of a job "each".
func (f *fixture) each(dir string, n int) (string, error) {
	for i := range n {
		if _, err := f.file(eachFile(dir, i), "x"); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// want notes the workers of samples.
func (f *fixture) want(samples []sample) {
	for _, s := range samples {
		f.wanted[s.worker] = true
	}
}

// start compiles the policies and starts the workers.
func (f *fixture) start() error {
	docs, problems := policy.Parse("bench.yaml", []byte(strings.Join(f.documents, "---\n")))
	if err := problems.Err(); err != nil {
		return err
	}
	rulesets, problems := policy.CompileAll(docs)
	if err := problems.Err(); err != nil {
		return err
	}
	var err error
	if f.kernel, err = newEnforcement(f.place.Full, rulesets); err != nil {
		return err
	}
	for name := range f.wanted {
		if f.workers[name], err = startWorker(name); err != nil {
			return err
		}
		switch name {
		case plainName:
		case landlockName:
			err = f.restrict(f.workers[name], rulesets, docs)
		default:
			err = f.kernel.add(f.workers[name])
		}
		if err != nil {
			return err
		}
	}
	runtime.GC() // what compiling left
	return nil
}

// restrict puts a worker under Landlock with what the coding agent's rules allow.
func (f *fixture) restrict(w *worker, rulesets []*policy.Ruleset, docs []policy.Document) error {
	subject, err := policy.ParseSubject(agentName)
	if err != nil {
		return err
	}
	for _, r := range rulesets {
		if r.Agent != subject {
			continue
		}
		list, err := grants(r, docs)
		if err != nil {
			return err
		}
		_, err = w.do(job{Do: "restrict", N: 1, Grants: list})
		return err
	}
	return fmt.Errorf("the policy says nothing about agent %s: name another with -policy", agentName)
}

func (f *fixture) close() error {
	var errs []error
	if f.kernel != nil {
		errs = append(errs, f.kernel.close())
	}
	for _, name := range []string{plainName, landlockName} {
		if w := f.workers[name]; w != nil {
			errs = append(errs, w.stop())
		}
	}
	for _, l := range f.listeners {
		errs = append(errs, l.Close())
	}
	if f.tree != "" {
		errs = append(errs, unix.Unmount(f.tree, unix.MNT_DETACH), os.Remove(f.tree))
	}
	if f.rootTree != "" {
		errs = append(errs, os.RemoveAll(f.rootTree))
	}
	return errors.Join(errs...)
}
