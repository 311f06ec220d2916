// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// Digest names a build: the kernel programs, and the version of what loads them.
// Only the same build goes on with the programs that it finds in force; another
// one puts its own in their place.
func Digest(version string) string {
	sum := sha256.New()
	sum.Write(_EnforcerBytes)
	sum.Write([]byte(version))
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// OtherBuildError says that programs of another build, which this one cannot take
// over, confine sessions. They stay in force; nothing was touched.
type OtherBuildError struct {
	Dir      string // of its pins
	Sessions int
	Differs  []string // what keeps this build from taking over
}

func (e *OtherBuildError) Error() string {
	return fmt.Sprintf("the programs in force (%s) confine %d sessions, and this build cannot take them over: %s; "+
		"start the build that they are of again until those sessions have ended, or end them with `bailiffd --remove`",
		e.Dir, e.Sessions, strings.Join(e.Differs, "; "))
}

// build is what one load has pinned.
type build struct {
	dir      string
	sessions int // that its maps tell of
	version  uint32
	inForce  bool // its programs tell; more may be attached
}

// PinnedFull tells whether programs that enforce the full tier are in force below
// a pin directory. ProbeLSM would change the code of a hook that sessions run
// through at every moment.
func PinnedFull(pinDir string) bool {
	entries, err := os.ReadDir(pinDir)
	if err != nil {
		return false // Load says what is wrong
	}
	for _, entry := range entries {
		b := inspect(filepath.Join(pinDir, entry.Name()))
		if !b.inForce {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(b.dir, "maps", pinName(fixedMap)), nil)
		if err != nil {
			return false
		}
		defer m.Close()
		var fixed enforcerConstants
		return m.Lookup(uint32(0), &fixed) == nil && fixed.FullTier != 0
	}
	return false
}

// survey looks at what is pinned. It returns the build in force, nil for none,
// and the directories of everything else: what an upgrade that was interrupted
// left, and what confines nobody and can't be taken over.
func survey(o Options) (current *build, rest []string, err error) {
	entries, err := os.ReadDir(o.PinDir)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", o.PinDir, err)
	}
	lost := (*build)(nil)
	for _, entry := range entries {
		b := inspect(filepath.Join(o.PinDir, entry.Name()))
		switch {
		case b.sessions > 0 && b.version != abiVersion:
			return nil, nil, &OtherBuildError{Dir: b.dir, Sessions: b.sessions, Differs: []string{
				fmt.Sprintf("the version of its ABI is %s, this build's is %d", versionName(b.version), abiVersion),
			}}
		case b.inForce && current == nil:
			current = b
			continue
		case b.inForce:
			return nil, nil, fmt.Errorf("look at the pins: both %s and %s are in force: end the sessions with `bailiffd --remove`", current.dir, b.dir)
		case b.sessions > 0:
			lost = b
		}
		rest = append(rest, b.dir)
	}
	if current == nil && lost != nil {
		return nil, nil, fmt.Errorf("look at the pins: those of the programs in force are missing beside %s, which tells of %d sessions: "+
			"end them with `bailiffd --remove`", lost.dir, lost.sessions)
	}
	return current, rest, nil
}

func versionName(version uint32) string {
	if version == 0 {
		return "unknown"
	}
	return fmt.Sprint(version)
}

// inspect looks at one directory of pins. One that is being made or removed, and
// one that cannot be read, is as good as empty.
func inspect(dir string) *build {
	b := &build{dir: dir}
	name := filepath.Base(dir)
	if strings.HasPrefix(name, newPrefix) || strings.HasPrefix(name, oldPrefix) {
		return b
	}
	b.sessions = pinnedSessions(dir)
	// The version is the first of the constants of every build, whatever else is there.
	if raw := pinnedValue(dir, fixedMap); len(raw) >= 4 {
		b.version = binary.NativeEndian.Uint32(raw)
	}
	if b.version != abiVersion {
		return b
	}
	var g globals
	_, turn, _ := strings.Cut(name, "-")
	if _, err := binary.Decode(pinnedValue(dir, bssMap), binary.NativeEndian, &g); err == nil {
		b.inForce = turn == turnName(g.Turn)
	}
	return b
}

// pinnedValue reads a map of globals; nil where there is none.
func pinnedValue(dir, name string) []byte {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "maps", pinName(name)), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil
	}
	defer m.Close()
	raw, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil
	}
	return raw
}

// pinnedSessions counts the sessions that a directory of pins tells of, without
// the daemon's own.
func pinnedSessions(dir string) int {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "maps", enforcerMapSessions), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0
	}
	defer m.Close()
	n := 0
	value := make([]byte, m.ValueSize())
	var key []byte
	for it := m.Iterate(); it.Next(&key, &value); {
		if binary.NativeEndian.Uint64(value) < OwnSessions { // first in struct session, of every build so far
			n++
		}
	}
	return n
}

// unread returns how many bytes of events wait for a daemon.
func unread(events *ebpf.Map) (int, error) {
	r, err := mapRing(events)
	if err != nil {
		return 0, fmt.Errorf("look at the events that wait: %w", err)
	}
	return int(r.producer.Load() - r.consumer.Load()), r.unmap()
}

// own tells whether this build loaded it.
func (b *build) own(o Options) bool {
	return strings.HasPrefix(filepath.Base(b.dir), Digest(o.Version)+"-")
}

// turnName is the part of a directory's name that says whether it is in force.
func turnName(turn uint64) string { return fmt.Sprintf("%016x", turn) }

// pinsOf names the directory of one load.
func pinsOf(o Options, turn uint64) string {
	return filepath.Join(o.PinDir, Digest(o.Version)+"-"+turnName(turn))
}
