// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"bailiff.dev/bailiff/internal/kerneltest"
	"bailiff.dev/bailiff/policy"
)

// begin starts a probe whose result is received later.
func (s *confined) begin(op string, args ...any) {
	s.t.Helper()
	call := []string{op}
	for _, a := range args {
		call = append(call, fmt.Sprint(a))
	}
	if err := s.in.Encode(call); err != nil {
		s.t.Fatal(err)
	}
}

// While sets of policies replace each other, what all of them allow is never
// denied, and what none allows is never allowed.
func TestSwap(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/a/f", root+"/secret/f", root+"/w/no/f")
	policies := make([]rules, 4)
	for i := range policies {
		policies[i].files = []string{path("read", root+"/w"), deny("read", root+"/w/no")}
		for j := range i * 5 {
			policies[i].files = append(policies[i].files, path("read, write", fmt.Sprint(root, "/other", i, "/", j, "/**/x*")))
		}
	}
	s := k.start(t, policies[0])
	const time4 = 6 * time.Second
	s.begin("storm", time4.Milliseconds(), root+"/w/a/f "+root+"/secret/f "+root+"/w/no/f")
	swaps := 0
	for end := time.Now().Add(time4); swaps < 1000 && time.Now().Before(end); swaps++ {
		k.apply(t, policies[swaps%len(policies)])
	}
	var good, goodDenied, bad, badDenied, no, noDenied int
	if _, err := fmt.Sscan(s.receive().Value, &good, &goodDenied, &bad, &badDenied, &no, &noDenied); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d swaps, %d opens", swaps, good+badDenied+noDenied)
	if goodDenied > 0 || bad > 0 || no > 0 || good == 0 || badDenied == 0 || noDenied == 0 || swaps < 10 {
		t.Errorf("allowed path: %d opened, %d denied; denied paths: %d and %d opened, %d and %d denied", good, goodDenied, bad, no, badDenied, noDenied)
	}
}

// A cached verdict ends with its policy.
func TestApplyInvalidates(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/w/d/f")
	s := k.start(t, rules{files: []string{path("read", root+"/w")}})
	for range 3 {
		s.allowed("open", root+"/w/d/f", "r")
		k.apply(t, rules{})
		s.denied("open", root+"/w/d/f", "r")
		k.apply(t, rules{files: []string{path("write", root+"/w")}})
		s.denied("open", root+"/w/d/f", "r")
		s.allowed("open", root+"/w/d/f", "w")
		k.apply(t, rules{files: []string{path("read", root+"/w")}})
	}
	if _, err := k.Apply(Set{}); err != nil {
		t.Fatal(err)
	}
	s.denied("open", root+"/w/d/f", "r")
}

// What was taken for rules is given back with them.
func TestRulesGiveBack(t *testing.T) {
	k := basic(t)
	k.apply(t, rules{})
	before := k.use(t)
	for i := range 20 {
		k.apply(t, rules{
			files:   []string{path("read", fmt.Sprint("/a", i, "/**/*.x")), path("write", fmt.Sprint("/b", i))},
			network: []string{fmt.Sprintf("{allow: connect, cidr: 10.%d.0.0/16, ports: [1-1000]}", i)},
		})
	}
	k.apply(t, rules{})
	if after := k.use(t); !maps.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
}

// Rules that don't fit change nothing.
func TestRulesTooMany(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/w/f")
	s := k.start(t, rules{files: []string{path("read", root+"/w")}})
	before, err := k.Maps()
	if err != nil {
		t.Fatal(err)
	}
	large := compile(t, rules{network: []string{"{allow: connect, ip: 10.0.0.1, ports: [1-1000]}"}}.yaml())
	large[0].Files.Globs = make([]policy.GlobNode, 1<<16) // the table has fewer
	large[0].Digest[0]++
	_, err = k.Apply(Set{Rulesets: large, Agents: map[string]string{testSubject: testSubject}})
	var full *CapacityError
	if !errors.As(err, &full) {
		t.Fatalf("apply: %v, want a CapacityError", err)
	}
	s.allowed("open", root+"/w/f", "r")
	after, err := k.Maps()
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("before %v, after %v", before, after)
	}
}

// The programs outlive who loaded them, and are found again.
func TestAdopt(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/f", root+"/f", root+"/w/no/f", root+"/later/f")
	first := rules{
		files:   []string{path("read", root+"/w"), deny("read", root+"/**/no*")},
		network: []string{"{allow: connect, ip: 127.0.0.1, ports: [1-80]}"},
	}
	s := k.start(t, first)
	stranger := k.session(t, "spiffe://local/agent/stranger")
	check := func(when string) {
		t.Helper()
		s.allowed("open", root+"/w/f", "r")
		s.denied("open", root+"/f", "r")
		s.denied("open", root+"/w/no/f", "r")
		s.want(13, "connect", s.socketOf("stream", ""), "127.0.0.1:81")
		s.want(111, "connect", s.socketOf("stream", ""), "127.0.0.1:80")
		if t.Failed() {
			t.Fatal(when)
		}
	}
	check("before")
	sessions, agents := reload(t, k, func() { check("with nobody there") })
	if len(sessions) != 2 {
		t.Errorf("sessions %v", sessions)
	}
	check("adopted")
	delete(agents, "spiffe://local/agent/stranger")
	k.RestoreAgents(agents, nil)
	if n, err := k.AgentNumber("spiffe://local/agent/new", testSubject); err != nil || n == s.info.Agent || n == stranger.info.Agent {
		t.Errorf("a new agent has number %d, %v", n, err)
	}
	// The same rules again, then others, beside those that were there.
	k.apply(t, first)
	check("applied again")
	stranger.denied("open", root+"/w/f", "r")
	first.files = append(first.files, path("read", root+"/later"))
	k.apply(t, first)
	check("applied more")
	s.allowed("open", root+"/later/f", "r")
	for range 3 {
		k.apply(t, rules{files: []string{path("read", root)}})
		stranger.denied("open", root+"/w/f", "r")
	}
	s.allowed("open", root+"/f", "r")
}

// reload lets go of the programs and loads again.
func reload(t *testing.T, k *kernel, between func()) ([]Session, map[string]uint32) {
	t.Helper()
	agents := k.Agents()
	if err := errors.Join(k.reader.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	between()
	var err error
	if k.Enforcer, err = Load(k.options); err != nil {
		t.Fatal(err)
	}
	if !k.Adopted() {
		t.Fatal("loaded, not adopted")
	}
	if k.reader, err = k.NewReader(); err != nil {
		t.Fatal(err)
	}
	sessions, err := k.Sessions()
	if err != nil {
		t.Fatal(err)
	}
	return sessions, agents
}

// Programs of another build stay in force as long as they confine somebody.
func TestOtherBuild(t *testing.T) {
	k := basic(t)
	o := k.options
	o.PinDir = filepath.Join(filepath.Dir(o.PinDir), "other")
	dir := filepath.Join(o.PinDir, "0123456789abcdef", "maps")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 24, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Put(uint64(1), make([]byte, 24)); err != nil {
		t.Fatal(err)
	}
	if err := m.Pin(filepath.Join(dir, enforcerMapSessions)); err != nil {
		t.Fatal(err)
	}
	var other *OtherBuildError
	if _, err := Load(o); !errors.As(err, &other) || other.Sessions != 1 {
		t.Fatalf("load: %v, want an OtherBuildError with one session", err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the pins of the other build: %v", err)
	}
	if err := m.Delete(uint64(1)); err != nil {
		t.Fatal(err)
	}
	current, rest, err := survey(o)
	if current != nil || len(rest) != 1 || err != nil {
		t.Fatalf("survey: %v, %v, %v", current, rest, err)
	}
	if err := Remove(o.PinDir); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := os.Stat(o.PinDir); !os.IsNotExist(err) {
		t.Errorf("the pins of the other build: %v", err)
	}
}
