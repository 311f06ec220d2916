// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/canary"
	"bailiff.dev/bailiff/policy"
)

// Each of the canary's agents is denied what the other is allowed, so that one
// layer alone denies it.
func TestCanaryPolicies(t *testing.T) {
	docs, problems := policy.ParseBuiltin("<canary>", []byte(canaryDocuments()))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	for agent, allowed := range map[string][]uint16{canaryTask: {portOpen, portLSM}, canaryCgroup: {portOpen, portCgroup}} {
		r, problems := policy.Compile(agent, docs)
		if err := problems.Err(); err != nil {
			t.Fatal(err)
		}
		for _, port := range []uint16{portOpen, portLSM, portCgroup} {
			want := port == allowed[0] || port == allowed[1]
			got, _ := r.Net.Lookup(policy.Outbound, netip.MustParseAddr("127.0.0.1"), port, policy.UDP)
			if got.Allow != want {
				t.Errorf("%s: port %d: %v, want %v", agent, port, got.Allow, want)
			}
		}
		if r.Rights(components(canaryFile)) != policy.Read || r.Rights(components("/var/lib/bailiff/lock")) != 0 {
			t.Errorf("%s: %s may be used for %s, the state for %s", agent, canaryFile,
				r.Rights(components(canaryFile)), r.Rights(components("/var/lib/bailiff/lock")))
		}
	}
}

func TestOwnAgentsAreNobodyElses(t *testing.T) {
	for subject, refused := range map[string]bool{
		canaryTask: true, ownDomain + "*": true, "spiffe://bailiff.invalid.example/a": false, "spiffe://example.org/*": false,
	} {
		for _, spec := range []string{"kind: AgentPolicy\nspec: {subject: {spiffeID: \"" + subject + "\"}}", "kind: Guardrail\nspec: {subjects: [\"" + subject + "\"]}"} {
			docs, problems := policy.Parse("f.yaml", []byte("apiVersion: bailiff.dev/v1alpha1\nmetadata: {name: a}\n"+spec+"\n"))
			if err := problems.Err(); err != nil {
				t.Fatal(err)
			}
			if got := aboutOwn(docs); got.Has(policy.Error) != refused {
				t.Errorf("%s: %v", subject, got)
			}
		}
	}
}

func TestTrialJudge(t *testing.T) {
	x := trial{"files", canary.Act{Kind: canary.Open, Path: "/secret"}, canary.Act{Kind: canary.Connect, Port: 9}}
	for _, c := range []struct {
		denied, allowed error
		want            string
	}{
		{unix.EACCES, nil, ""}, {unix.EPERM, nil, ""},
		{nil, nil, "it was possible to open /secret"}, {unix.ENOENT, nil, "to open /secret failed without being denied"},
		{unix.EACCES, unix.EACCES, "to connect to 127.0.0.1:9/udp failed, which must be possible"},
	} {
		err := x.judge(c.denied, c.allowed)
		if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, %v: %v, want %q", c.denied, c.allowed, err, c.want)
		}
	}
}

// Only a change is news, and a layer that is not live is named until it is.
func TestLive(t *testing.T) {
	var l live
	broken, other := errors.New("broken"), errors.New("otherwise")
	for i, step := range []struct {
		name    string
		problem error
		news    bool
		err     string
	}{
		{"a", nil, false, ""}, {"b", broken, true, "b: broken"}, {"b", other, false, "b: otherwise"}, {"a", broken, true, "a: broken; b: otherwise"},
		{"b", nil, true, "a: broken"}, {"a", nil, true, ""}, {"a", nil, false, ""},
	} {
		if news := l.set(step.name, step.problem); news != step.news {
			t.Errorf("step %d: news: %v", i, news)
		}
		err := l.err()
		if (err == nil) != (step.err == "") || err != nil && err.Error() != "enforcement is not live: "+step.err {
			t.Errorf("step %d: %v, want %q", i, err, step.err)
		}
	}
}
