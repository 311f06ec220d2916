// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// tree is directories d0, d1, ... that move between places, some of which are allowed.
type tree struct {
	root string
	at   []string // where each is
}

func newTree(root string, n int) *tree {
	tr := &tree{root: root}
	for i := range n {
		place := fmt.Sprintf("%s/%s%d", root, []string{"pub", "sec"}[i%2], i)
		touch(place+"/deep/er/f", place+"/f")
		tr.at = append(tr.at, place)
	}
	return tr
}

func allowedAt(path string) bool { return strings.Contains(path, "/pub") }

// move renames a random directory to a new name, or exchanges two.
func (tr *tree) move(t *testing.T, g *rand.Rand, serial int) {
	t.Helper()
	i, j := g.IntN(len(tr.at)), g.IntN(len(tr.at))
	if i != j && g.IntN(3) == 0 {
		if err := unix.Renameat2(unix.AT_FDCWD, tr.at[i], unix.AT_FDCWD, tr.at[j], unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
		tr.at[i], tr.at[j] = tr.at[j], tr.at[i]
		return
	}
	to := fmt.Sprintf("%s/%s%d", tr.root, []string{"pub", "sec"}[g.IntN(2)], 100+serial)
	if err := os.Rename(tr.at[i], to); err != nil {
		t.Fatal(err)
	}
	tr.at[i] = to
}

// noise renames elsewhere on the same filesystem until it is told to stop.
func noise(dir string, pause time.Duration) (stop func()) {
	var wait sync.WaitGroup
	done := make(chan struct{})
	touch(dir + "/0")
	wait.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if err := os.Rename(fmt.Sprint(dir, "/", i), fmt.Sprint(dir, "/", i+1)); err != nil {
				panic(err)
			}
			time.Sleep(pause)
		}
	})
	return func() { close(done); wait.Wait() }
}

// Each open is judged by the name that its object has at the time, whatever was
// cached before, while others rename.
func TestCacheUnderRenames(t *testing.T) {
	for name, make := range filesystems() {
		t.Run(name, func(t *testing.T) {
			k := full(t)
			root := make(t)
			tr := newTree(root, 8)
			defer noise(root+"/noise", time.Millisecond)()
			s := k.start(t, rules{files: []string{path("read", root+"/pub*")}})
			g := rand.New(rand.NewPCG(1, 2))
			opens := 0
			for serial := range 120 {
				var calls []any
				var want strings.Builder
				for range 12 {
					place := tr.at[g.IntN(len(tr.at))]
					calls = append(calls, "r\x00"+place+[]string{"/f", "/deep/er/f", "/deep"}[g.IntN(3)])
					want.WriteByte(map[bool]byte{true: 'a', false: 'd'}[allowedAt(place)])
				}
				if got := s.allowed("verdicts", calls...).Value; got != want.String() {
					t.Fatalf("round %d: verdicts %s, want %s\n%v", serial, got, want.String(), calls)
				}
				opens += len(calls)
				tr.move(t, g, serial)
			}
			t.Logf("%d opens", opens)
		})
	}
}

// While directories move between names that are denied, and others between
// names that are allowed, none of the first opens. A rename storm may cost an
// allowed open its turn, never more.
func TestOpensDuringRenames(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/sec1/d/f", root+"/pub1/d/f", root+"/w/a/f")
	s := k.start(t, rules{files: []string{path("read", root+"/pub*"), path("read, create, delete", root+"/w")}})
	s.begin("storm", 3000, strings.Join([]string{root + "/sec1/d/f", root + "/sec2/d/f", root + "/pub1/d/f", root + "/pub2/d/f"}, " "))
	moves := 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); moves++ {
		from, to := 1+moves%2, 1+(moves+1)%2
		for _, kind := range []string{"/sec", "/pub"} {
			if err := os.Rename(fmt.Sprint(root, kind, from), fmt.Sprint(root, kind, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var n [8]int
	if _, err := fmt.Sscan(s.receive().Value, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]); err != nil {
		t.Fatal(err)
	}
	opened, lost := n[4]+n[6], n[5]+n[7]
	t.Logf("%d moves; denied names: %d denied; allowed names: %d opened, %d denied", moves, n[1]+n[3], opened, lost)
	if n[0]+n[2] > 0 {
		t.Errorf("%d opens of denied names", n[0]+n[2])
	}
	if n[1]+n[3] == 0 || opened == 0 || lost*50 > opened {
		t.Error("too few opens, or too many of an allowed name were denied")
	}
	for _, ev := range k.events(t) {
		if strings.Contains(strings.Join(ev.Path, "/"), "pub") && ev.Reason != "race" {
			t.Fatalf("an allowed name was denied: %+v", ev)
		}
	}
}

// The session's own renames end what was cached too.
func TestOwnRenames(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/w/a/b/f", root+"/w/c/f")
	s := k.start(t, rules{files: []string{path("read, write, create, delete", root+"/w"), deny("read", root+"/w/*/no")}})
	for i := range 20 {
		s.allowed("open", root+"/w/a/b/f", "r")
		s.allowed("rename", root+"/w/a/b", root+"/w/c/b")
		s.allowed("open", root+"/w/c/b/f", "r")
		s.want(unix.ENOENT, "open", root+"/w/a/b/f", "r")
		if err := os.Rename(root+"/w/c/b", root+"/w/c/no"); err != nil { // somebody else's
			t.Fatal(err)
		}
		s.denied("open", root+"/w/c/no/f", "r")
		if err := os.Rename(root+"/w/c/no", root+"/w/a/b"); err != nil {
			t.Fatal(i, err)
		}
	}
}

// Mounting something over a directory, and taking it away, ends what was cached.
func TestCacheUnderMounts(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root+"/pub/m/f", root+"/sec/m/f", root+"/src/d/f")
	mount(t, "tmpfs", root+"/src", "tmpfs", 0, "")
	touch(root + "/src/d/f")
	s := k.start(t, rules{files: []string{path("read", root+"/pub")}})
	for range 5 {
		if err := unix.Mount(root+"/src", root+"/pub/m", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		s.allowed("open", root+"/pub/m/d/f", "r")
		if err := unix.Unmount(root+"/pub/m", 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(root+"/src", root+"/sec/m", "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		s.denied("open", root+"/sec/m/d/f", "r")
		s.denied("open", root+"/src/d/f", "r")
		if err := unix.Unmount(root+"/sec/m", 0); err != nil {
			t.Fatal(err)
		}
	}
}

// On filesystems whose inodes have generation numbers, directories are cached.
func TestCacheIsUsed(t *testing.T) {
	k := full(t)
	root := kerneltest.TmpfsDir(t)
	touch(root + "/pub/f")
	s := k.start(t, rules{files: []string{path("read", root+"/pub")}})
	before := k.cached(t)
	s.allowed("open", root+"/pub/f", "r")
	if after := k.cached(t); after == before {
		t.Error("an open left nothing in the cache")
	}
}

// cached returns the sum of what is in the directory cache.
func (k *kernel) cached(t *testing.T) (sum uint64) {
	t.Helper()
	m := k.maps[enforcerMapDircache]
	keys, values := make([]uint32, m.MaxEntries()), make([]uint64, m.MaxEntries())
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	for _, v := range values[:n] {
		sum += v
	}
	return sum
}
