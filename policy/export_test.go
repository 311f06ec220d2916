// SPDX-License-Identifier: Apache-2.0

package policy

// CapabilityInfo is a row of the tables of capabilities in the reference.
type CapabilityInfo struct{ Name, What string }

// CapabilityTable returns the capabilities that a policy may name, or the others.
func CapabilityTable(open bool) (rows []CapabilityInfo) {
	for _, c := range capabilities() {
		if c.open == open {
			rows = append(rows, CapabilityInfo{c.name, c.what})
		}
	}
	return rows
}
