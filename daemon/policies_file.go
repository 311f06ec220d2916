// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"encoding/json"
	"slices"

	"bailiff.dev/bailiff/internal/audit"
)

// policiesOnDisk is storedPolicies with the documents that are in both sets written
// once: of thousands, a change is about a few.
type policiesOnDisk struct {
	storedSet
	Before struct {
		Since   uint64
		Builtin string
		Without []string         // names of documents that were not there, or not as they are now
		With    []storedDocument // what was there in place of them, or besides
	}
	Record audit.Event
}

// MarshalJSON implements json.Marshaler.
func (s storedPolicies) MarshalJSON() ([]byte, error) {
	disk := policiesOnDisk{storedSet: s.storedSet, Record: s.Record}
	disk.Before.Since, disk.Before.Builtin = s.Before.Since, s.Before.Builtin
	was := map[string]*storedDocument{}
	for i := range s.Before.Documents {
		was[s.Before.Documents[i].Name] = &s.Before.Documents[i]
	}
	for i := range s.Documents {
		now := &s.Documents[i]
		if old := was[now.Name]; old != nil && old.equal(now) {
			delete(was, now.Name)
		} else {
			disk.Before.Without = append(disk.Before.Without, now.Name)
		}
	}
	for i := range s.Before.Documents {
		if old := &s.Before.Documents[i]; was[old.Name] == old {
			disk.Before.With = append(disk.Before.With, *old)
		}
	}
	return json.Marshal(&disk)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *storedPolicies) UnmarshalJSON(data []byte) error {
	var disk policiesOnDisk
	if err := json.Unmarshal(data, &disk); err != nil {
		return err
	}
	*s = storedPolicies{storedSet: disk.storedSet, Record: disk.Record}
	s.Before = storedSet{Since: disk.Before.Since, Builtin: disk.Before.Builtin, Documents: disk.Before.With}
	without := map[string]bool{}
	for _, name := range disk.Before.Without {
		without[name] = true
	}
	for i := range s.Documents {
		if !without[s.Documents[i].Name] {
			s.Before.Documents = append(s.Before.Documents, s.Documents[i])
		}
	}
	slices.SortFunc(s.Before.Documents, byName)
	return nil
}

// equal compares everything but what was parsed.
func (s *storedDocument) equal(other *storedDocument) bool {
	return s.Name == other.Name && s.File == other.File && s.Line == other.Line && s.Text == other.Text &&
		s.AcceptDegraded == other.AcceptDegraded && s.Generation == other.Generation && s.Applied.Equal(other.Applied)
}

func byName(a, b storedDocument) int { return cmp.Compare(a.Name, b.Name) }
