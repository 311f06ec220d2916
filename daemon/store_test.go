// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir); err == nil || !strings.Contains(err.Error(), "another bailiffd") {
		t.Errorf("a second daemon on the same state: %v", err)
	}
	got := map[string]int{"untouched": 1}
	if err := s.read("missing", &got); err != nil || got["untouched"] != 1 {
		t.Errorf("a missing file: %v, %v", err, got)
	}
	for i := range 3 {
		if err := s.write("numbers", map[string]int{"n": i}); err != nil {
			t.Fatal(err)
		}
	}
	got = nil
	if err := s.read("numbers", &got); err != nil || got["n"] != 2 {
		t.Errorf("read back %v, %v", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("half-written files stay: %v, %v", entries, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "numbers"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.read("numbers", &got); err == nil || !strings.Contains(err.Error(), "numbers") {
		t.Errorf("a damaged file: %v", err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s, err = openStore(dir); err != nil {
		t.Fatalf("after the first daemon is gone: %v", err)
	}
	s.close()
}

func TestConfig(t *testing.T) {
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "bailiffd.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c, err := LoadConfig(write("tier: basic\nlog: {keep: 3}\n"))
	if err != nil || c.Tier != "basic" || c.Log.Keep != 3 || c.Log.MaxBytes != Defaults().Log.MaxBytes || c.StateDir != Defaults().StateDir {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := LoadConfig(write("")); err != nil || c.check() != nil {
		t.Errorf("an empty file: %v, %v", err, c.check())
	}
	if _, err := LoadConfig(write("teir: basic\n")); err == nil || !strings.Contains(err.Error(), "teir") {
		t.Errorf("a misspelt key: %v", err)
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a named file that is missing is taken for the default one")
	}
	for text, want := range map[string]string{
		"tier: best\n": "auto, full, basic", "cgroup: \"\"\n": "cgroup is empty", "capacity: {ringBytes: 5000}\n": "power of two",
		"canary: 3\n": "such as 3s", "canary: 1ms\n": "100ms to 1m", "canary: \"\"\n": "or off",
	} {
		c, err := LoadConfig(write(text))
		if err == nil {
			err = c.check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMountNames(t *testing.T) {
	if n, ok := deviceNumber("8:17"); !ok || n != 8<<20|17 {
		t.Errorf("8:17 is %#x, %v", n, ok)
	}
	for _, bad := range []string{"", "8", "8:", ":1", "4096:1", "1:1048576", "a:b"} {
		if _, ok := deviceNumber(bad); ok {
			t.Errorf("%q passes for a device number", bad)
		}
	}
	if got := unescapeMount(`/mnt/a\040b\134040\011`); got != "/mnt/a b\\040\t" {
		t.Errorf("%q", got)
	}
	mounts, err := readMounts()
	if found := homes(mounts); err != nil || len(found) == 0 {
		t.Fatalf("%v, %v", found, err)
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("x", maxCommand)
	if got := shorten([]string{"echo", long, "y"}); len(got) != 2 || got[1] != "..." {
		t.Errorf("%d words", len(got))
	}
	if got := shorten([]string{"echo", "x"}); len(got) != 2 || got[1] != "x" {
		t.Errorf("%q", got)
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id, number := newID()
		if seen[id] || number == 0 || len(id) != 10 || !strings.HasPrefix(id, "s-") {
			t.Fatalf("%q, %d", id, number)
		}
		seen[id] = true
	}
}

func TestDenials(t *testing.T) {
	var d denials
	for i := range maxDenials + 500 {
		d.add(denial{operation: "open", object: strconv.Itoa(i % (maxDenials + 100))}, 1)
	}
	list := d.list()
	if d.total() != maxDenials+500 || len(list) != maxDenials {
		t.Errorf("%d in %d kinds", d.total(), len(list))
	}
	for i := 1; i < len(list); i++ {
		if list[i].count > list[i-1].count {
			t.Fatalf("%d after %d", list[i].count, list[i-1].count)
		}
	}
}

// What a session is denied is of its own choosing: it takes only so much memory.
func TestDenialsAreBounded(t *testing.T) {
	table := sessions{byID: map[string]*session{}, byNumber: map[uint64]*session{}}
	text := func(s *session) (bytes int) {
		for _, x := range s.denials.list() {
			bytes += len(x.object)
		}
		return bytes
	}
	var all []*session
	for i := range maxDetailed + 2 {
		s := &session{sessionRecord: sessionRecord{ID: strconv.Itoa(i), Number: uint64(i)}}
		for j := range 1000 {
			s.denials.add(denial{operation: "open", object: strings.Repeat(strconv.Itoa(j), 1000)}, 1)
		}
		s.denials.add(denial{operation: "open", object: "0"}, 1)
		if n := text(s); n > maxDenialBytes || s.denials.total() != 1001 {
			t.Fatalf("%d bytes of %d denials", n, s.denials.total())
		}
		table.add(s)
		table.end(s, time.Unix(1, 0))
		all = append(all, s)
	}
	if old, young := text(all[0]), text(all[maxDetailed+1]); old > oldDenialBytes || young <= oldDenialBytes {
		t.Errorf("%d bytes of an old session, %d of a young one", old, young)
	}
}
