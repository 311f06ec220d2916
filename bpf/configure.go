// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
)

// fixedFor returns what the maps depend on: as it is, or drawn for new ones.
func fixedFor(o Options, f *fit) (enforcerConstants, error) {
	if f != nil {
		return f.fixed, nil
	}
	var random [4]uint64
	if err := binary.Read(rand.Reader, binary.NativeEndian, &random); err != nil {
		return enforcerConstants{}, fmt.Errorf("draw hash keys: %w", err)
	}
	fixed := enforcerConstants{
		Version: abiVersion, SessionLevel: o.Level, HashKey: [2]uint64(random[:2]), CacheKey: [2]uint64{random[2], random[3] | 1},
	}
	if o.Full {
		fixed.FullTier = 1
	}
	return fixed, nil
}

// configure sets the globals that are fixed for the programs' life, and those
// that new maps start with. It returns the load's turn.
func configure(spec *ebpf.CollectionSpec, fixed enforcerConstants) (turn uint64, err error) {
	if err := binary.Read(rand.Reader, binary.NativeEndian, &turn); err != nil {
		return 0, fmt.Errorf("draw a turn: %w", err)
	}
	locks, err := kernelSymbols("rename_lock", "mount_lock")
	if err != nil {
		return 0, err
	}
	key := hashKey(fixed.HashKey)
	values := map[string]any{
		"fixed":          fixed,
		"rename_lock_at": locks["rename_lock"],
		"mount_lock_at":  locks["mount_lock"],
		"self_hash":      key.sum("self"),
		"abstract_hash":  key.sum("\x00"),
		"ring_share":     uint64(max(spec.Maps[enforcerMapEvents].MaxEntries/ringShare, 16)),
		"own_turn":       turn,
		"turn":           turn,
	}
	if locks["rename_lock"] == 0 || locks["mount_lock"] == 0 {
		values["rename_lock_at"], values["mount_lock_at"] = uint64(0), uint64(0)
	}
	for name, value := range values {
		v, ok := spec.Variables[name]
		if !ok {
			return 0, fmt.Errorf("set %s: the kernel object has no such variable", name)
		}
		if err := v.Set(value); err != nil {
			return 0, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return turn, nil
}
