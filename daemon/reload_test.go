// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// BenchmarkReload changes one of 10,000 policies about 200 agents.
func BenchmarkReload(b *testing.B) {
	d := startFuzzed(b)
	document := func(i, version int) string {
		return fmt.Sprintf("apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p%d}\nspec:\n  subject: {spiffeID: a%d}\n  files:\n    - {path: /srv/%d/%d, allow: [read]}\n", i, i%200, i, version)
	}
	apply := func(name, text string) {
		request := connect.NewRequest(&controlv1.ApplyPoliciesRequest{Files: []*controlv1.PolicyFile{{Name: name, Content: []byte(text)}}, AcceptDegraded: true})
		if answer, err := d.ApplyPolicies(context.Background(), request); err != nil || answer.Msg.Generation == 0 {
			b.Fatalf("%v %v", err, answer)
		}
	}
	var all strings.Builder
	for i := range 10000 {
		all.WriteString(document(i, 0) + "---\n")
	}
	apply("all.yaml", all.String())
	for i := range 200 {
		if _, err := d.kernel.AgentNumber(fmt.Sprintf("spiffe://local/agent/a%d", i), fmt.Sprintf("spiffe://local/agent/a%d", i)); err != nil {
			b.Fatal(err)
		}
	}
	version := 0
	for b.Loop() {
		version++
		apply(fmt.Sprintf("%d.yaml", version%10000), document(version%10000, version))
	}
}
