// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"math/bits"
)

// hashKey keys the hash of path components. It is drawn at load and never
// leaves root's reach: who knows it can make file names that collide.
type hashKey [2]uint64

// sum is SipHash-1-3 (Aumasson and Bernstein, 2012) of a component, as
// hash.bpf.h computes it.
func (k hashKey) sum(name string) uint64 {
	s := sip{
		k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d,
		k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573,
	}
	full := len(name) &^ 7
	for i := 0; i < full; i += 8 {
		s.word(binary.LittleEndian.Uint64([]byte(name[i : i+8])))
	}
	var rest [8]byte
	copy(rest[:], name[full:])
	rest[7] = byte(len(name))
	s.word(binary.LittleEndian.Uint64(rest[:]))
	s.v2 ^= 0xff
	s.round()
	s.round()
	s.round()
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3
}

type sip struct{ v0, v1, v2, v3 uint64 }

func (s *sip) word(w uint64) {
	s.v3 ^= w
	s.round()
	s.v0 ^= w
}

func (s *sip) round() {
	s.v0 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v2 = bits.RotateLeft64(s.v2, 32)
}
