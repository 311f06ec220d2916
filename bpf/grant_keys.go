// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// grantPathKey chains the hashes of a path's components, from the root down; see
// descend in grant.bpf.h.
func (e *Enforcer) grantPathKey(session uint64, path string) enforcerGrantPathKey {
	h := e.cacheKey[0]
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		h = (h ^ e.key.sum(name)) * e.cacheKey[1]
		h ^= h >> 32
	}
	return enforcerGrantPathKey{Session: session, Hash: h}
}

// netKeyBits are the bits of a grant_net_key before the address.
const netKeyBits = 64 + 8 + 8 + 16

// grantNetKeys returns a key for each port.
func grantNetKeys(session uint64, n GrantNetwork) []enforcerGrantNetKey {
	ports := n.Ports
	if len(ports) == 0 {
		ports = []uint16{0}
	}
	bits, address, family := n.Prefix.Bits(), n.Prefix.Masked().Addr(), uint8(6)
	if address.Is4() {
		bits, family = bits+96, 4
	}
	var keys []enforcerGrantNetKey
	for _, port := range ports {
		keys = append(keys, enforcerGrantNetKey{
			Prefixlen: uint32(netKeyBits + bits), Session: [2]uint32{uint32(session), uint32(session >> 32)},
			Family: family, Protocol: n.Protocol, Port: bigEndian(port), Address: address.As16(),
		})
	}
	return keys
}

// shortestKey is how many bits a key has that stands for all addresses.
func shortestKey(family uint8) uint32 {
	if family == 4 {
		return netKeyBits + 96
	}
	return netKeyBits
}

// coveredBy widens a key to a prefix of so many bits.
func coveredBy(key enforcerGrantNetKey, bits uint32) enforcerGrantNetKey {
	for i := bits; i < key.Prefixlen; i++ {
		at := i - netKeyBits
		key.Address[at/8] &^= 0x80 >> (at % 8)
	}
	key.Prefixlen = bits
	return key
}

// contains tells whether every address of key is one of wide, which is of the same
// netGroup.
func (wide *enforcerGrantNetKey) contains(key *enforcerGrantNetKey) bool {
	return wide.Prefixlen <= key.Prefixlen && coveredBy(*key, wide.Prefixlen).Address == wide.Address
}

// netGroup is a key without its address: what the keys have in common of which one
// can be within another.
func netGroup(key enforcerGrantNetKey) enforcerGrantNetKey {
	key.Prefixlen, key.Address = 0, [16]uint8{}
	return key
}

// netKeys are the keys of a netGroup, so that those within one follow it.
type netKeys []enforcerGrantNetKey

func compareNetKeys(a, b enforcerGrantNetKey) int {
	return cmp.Or(bytes.Compare(a.Address[:], b.Address[:]), cmp.Compare(a.Prefixlen, b.Prefixlen))
}

func (l netKeys) with(key enforcerGrantNetKey) netKeys {
	i, found := slices.BinarySearchFunc(l, key, compareNetKeys)
	if found {
		return l
	}
	return slices.Insert(l, i, key)
}

func (l netKeys) without(key enforcerGrantNetKey) netKeys {
	i, found := slices.BinarySearchFunc(l, key, compareNetKeys)
	if !found {
		return l
	}
	return slices.Delete(l, i, i+1)
}

// within returns the keys all of whose addresses are of one, itself among them.
func (l netKeys) within(wide enforcerGrantNetKey) netKeys {
	from, _ := slices.BinarySearchFunc(l, wide, compareNetKeys)
	to := from
	for to < len(l) && wide.contains(&l[to]) {
		to++
	}
	return l[from:to:to] // whoever adds to them has a list of his own
}
