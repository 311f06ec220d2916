// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"bailiff.dev/bailiff/internal/audit"
)

// Both sets come back from the file as they were, whatever they have in common.
func TestPoliciesFile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	set := func(since uint64) (s storedSet) {
		s.Since, s.Builtin = since, fmt.Sprint("builtin ", random.IntN(2))
		for i := range 8 {
			if random.IntN(3) > 0 {
				s.Documents = append(s.Documents, storedDocument{
					Name: fmt.Sprint("p", i), File: fmt.Sprint("file", random.IntN(2)), Line: random.IntN(2), Text: fmt.Sprint("text ", random.IntN(2)),
					AcceptDegraded: random.IntN(2) > 0, Generation: uint64(random.IntN(2)), Applied: time.Unix(int64(random.IntN(2)), 5).UTC(),
				})
			}
		}
		return s
	}
	for range 500 {
		want := storedPolicies{storedSet: set(7), Before: set(3), Record: audit.Event{ID: "x"}}
		if random.IntN(4) == 0 {
			want.Before.Documents = append([]storedDocument(nil), want.Documents...)
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got storedPolicies
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s:\n%+v, want\n%+v", text, got, want)
		}
	}
}

// What did not change is written once.
func TestPoliciesFileIsSmall(t *testing.T) {
	var s storedPolicies
	for i := range 100 {
		s.Documents = append(s.Documents, storedDocument{Name: fmt.Sprintf("p%03d", i), Text: "the text"})
	}
	s.Before.Documents = append(s.Before.Documents, s.Documents...)
	s.Before.Documents[50].Text = "the text before"
	text, err := json.Marshal(s)
	if n := strings.Count(string(text), "the text"); err != nil || n != 101 {
		t.Errorf("%d texts, want 101: %v", n, err)
	}
}
