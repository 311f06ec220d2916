// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"reflect"
	"testing"

	"bailiff.dev/bailiff/policy"
)

// FuzzSplit: whatever file is applied, its documents cut apart are the same
// documents, with their lines where they were: what was checked is what is stored.
func FuzzSplit(f *testing.F) {
	const head = "apiVersion: bailiff.dev/v1alpha1\nkind: AgentPolicy\n"
	f.Add([]byte(head + "metadata: {name: p}\nspec:\n  subject: {spiffeID: a}\n---\n" + head + "metadata: {name: q}\nspec: {subject: {spiffeID: b}}\n"))
	f.Add([]byte("--- # first\n" + head + "metadata: {name: p}\nspec:\n  subject: {spiffeID: a}\n--- \n\n---\n"))
	f.Add([]byte("# c\r\n--- {apiVersion: bailiff.dev/v1alpha1, kind: AgentPolicy, metadata: {name: p}, spec: {subject: {spiffeID: a}}}\r\n...\r\n---\t\r\n"))
	f.Add([]byte(head + "metadata: {name: p}\nspec:\n  subject:\n    spiffeID: |-\n      a\n  files:\n    - path: \"/a\n\n---\"\n      allow: [read]\n"))
	f.Add([]byte("\ufeff" + head + "metadata: {name: p}\nspec: {subject: {spiffeID: a}}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		docs, problems := policy.Parse("f.yaml", content)
		if problems.Has(policy.Error) {
			return
		}
		stored := split("f.yaml", string(content), docs, false)
		if len(stored) != len(docs) {
			t.Fatalf("%d documents were cut into %d", len(docs), len(stored))
		}
		for i := range stored {
			again, problems := stored[i].parse()
			if problems.Has(policy.Error) || len(again) != 1 {
				t.Fatalf("document %d, cut out, is %d documents: %v\n%q", i, len(again), problems.Err(), stored[i].Text)
			}
			if stored[i].Name != docs[i].Name || !reflect.DeepEqual(again[0], docs[i]) {
				t.Fatalf("document %d, cut out, is another:\n%+v\n%+v", i, again[0], docs[i])
			}
		}
	})
}
