// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// record builds a record of the ring as the programs write it.
func record(e enforcerEvent, paths string) []byte {
	raw := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&e)), eventSize))
	return append(raw, paths...)
}

// sampleRecords are one of each kind of object, and some that lie about lengths.
func sampleRecords() [][]byte {
	const leaf, target = "f\x00srv\x00", "g\x00srv\x00"
	event := func(change func(*enforcerEvent)) enforcerEvent {
		e := enforcerEvent{Version: abiVersion, Operation: uint8(enforcerOperationOP_OPEN), Verdict: uint8(enforcerVerdictVERDICT_DENY), Access: 1, Agent: 1, Pid: 7, Tid: 7}
		change(&e)
		return e
	}
	all := [][]byte{
		record(event(func(e *enforcerEvent) {
			e.Object, e.PathLen, e.TargetLen, e.Operation = uint8(enforcerObjectOBJECT_PATH), uint32(len(leaf)), uint32(len(target)), uint8(enforcerOperationOP_RENAME)
			e.ExeLen, e.Ancestors = 3, 2
			copy(e.Exe[:], []int8{'s', 'h', 0})
		}), leaf+target),
		record(event(func(e *enforcerEvent) { e.Object, e.PathLen = uint8(enforcerObjectOBJECT_ABSTRACT), 3 }), "a\x00b"),
		record(event(func(e *enforcerEvent) { e.Object, e.Port, e.Address[15] = uint8(enforcerObjectOBJECT_INET), 443, 1 }), ""),
		record(event(func(e *enforcerEvent) { e.Object, e.Peer = uint8(enforcerObjectOBJECT_TASK), 1 }), strings.Repeat("x", 64)),
		record(event(func(e *enforcerEvent) { e.PathLen, e.TargetLen = 1<<32-1, 1 }), leaf),
		record(event(func(e *enforcerEvent) { e.ExeLen = 1 << 31 }), leaf),
		record(event(func(e *enforcerEvent) { e.Ancestors = 255 }), leaf),
		record(event(func(e *enforcerEvent) { e.Version++ }), leaf),
		record(event(func(e *enforcerEvent) { e.Operation, e.Verdict, e.Reason, e.Object = 255, 255, 255, 255 }), leaf),
	}
	return append(all, all[0][:eventSize], all[0][:eventSize-1], nil)
}

// FuzzDecodeEvent: whatever is in the ring, nothing beyond a record is read, and
// what a length promises but the record does not hold is an error.
func FuzzDecodeEvent(f *testing.F) {
	for _, raw := range sampleRecords() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// In the middle of other bytes, whose appearance in an event would give an over-read away.
		const around = "\xa5outside\xa5"
		memory := slices.Concat([]byte(around), raw, []byte(around))
		view := memory[len(around) : len(around)+len(raw)] // with room left, as the ring's buffer has
		ev, err := decode(view)
		if err != nil {
			if ev != nil {
				t.Errorf("an event beside an error: %v", err)
			}
			return
		}
		var e enforcerEvent
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), eventSize), raw)
		if held := uint64(len(raw) - eventSize); uint64(e.PathLen)+uint64(e.TargetLen) > held {
			t.Fatalf("%d and %d bytes of paths in a record that holds %d", e.PathLen, e.TargetLen, held)
		}
		if int(e.ExeLen) > len(e.Exe) || int(e.Ancestors) != len(ev.Ancestors) {
			t.Fatalf("executable of %d bytes, %d ancestors told as %d", e.ExeLen, e.Ancestors, len(ev.Ancestors))
		}
		if n := length(ev.Path) + length(ev.Target); n > len(raw)-eventSize+2 {
			t.Fatalf("%d bytes of names from %d", n, len(raw)-eventSize)
		}
		if ev.Operation == "" || ev.Verdict == "" || ev.Reason == "" || ev.Kind == "" {
			t.Fatalf("something has no name: %+v", ev)
		}
		text := strings.Join(slices.Concat(ev.Path, ev.Target, []string{ev.Executable}), "/")
		if strings.Contains(text, around) && !strings.Contains(string(raw), around) {
			t.Fatalf("%q was outside of the record", text)
		}
	})
}

// length is the bytes of names, with one after each but the last.
func length(names []string) int {
	n := max(len(names)-1, 0)
	for _, name := range names {
		n += len(name)
	}
	return n
}
