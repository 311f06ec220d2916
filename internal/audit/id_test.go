// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"sort"
	"testing"
	"time"
)

func TestIDs(t *testing.T) {
	id := idMaker()
	at := time.Unix(1_800_000_000, 5)
	var ids []string
	seen := map[string]bool{}
	for i := range 5000 {
		x := id(at.Add(time.Duration(i/5) * time.Nanosecond))
		if seen[x] || len(x) != 21 {
			t.Fatalf("%q is there already, or not 21 bytes", x)
		}
		seen[x] = true
		ids = append(ids, x)
	}
	if !sort.StringsAreSorted(ids) {
		t.Error("ids are not in the order of events")
	}
}
