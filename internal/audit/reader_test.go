// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// fixture writes three files: events 0-9, 10-19 and 20-29, an hour apart each.
func fixture(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for file := range 3 {
		var text []byte
		for i := file * 10; i < file*10+10; i++ {
			ev := action(LocalAgents+[]string{"odd", "even"}[(i+1)%2], strconv.Itoa(i))
			ev.Schema, ev.Time, ev.Session = Schema, epoch.Add(time.Duration(i)*time.Hour), "s-"+strconv.Itoa(i%3)
			if i%5 == 0 {
				ev.Verdict = "allow"
			}
			if i == 15 {
				ev = Event{Schema: Schema, ID: "15", Kind: Policy, Time: ev.Time}
			}
			line, err := Encode(&ev)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, line...)
		}
		name := currentName
		if file < 2 {
			name = rotatedName(epoch.Add(time.Duration(file*10) * time.Hour))
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadSelects(t *testing.T) {
	dir := fixture(t)
	for name, c := range map[string]struct {
		o    ReadOptions
		want string
	}{
		"last":          {ReadOptions{Last: 3}, "27 28 29"},
		"across files":  {ReadOptions{Last: 12}, "18 19 20 21 22 23 24 25 26 27 28 29"},
		"none":          {ReadOptions{}, ""},
		"session":       {ReadOptions{Last: 2, Filter: Filter{Session: "s-0"}}, "24 27"},
		"agent by name": {ReadOptions{Last: All, Filter: Filter{Agent: "odd", Since: epoch.Add(25 * time.Hour)}}, "25 27 29"},
		"agent by id":   {ReadOptions{Last: 1, Filter: Filter{Agent: LocalAgents + "even"}}, "28"},
		"part of name":  {ReadOptions{Last: All, Filter: Filter{Agent: "ven"}}, ""},
		"verdict":       {ReadOptions{Last: All, Filter: Filter{Verdicts: []string{"allow"}}}, "0 5 10 20 25"},
		"verdicts":      {ReadOptions{Last: 2, Filter: Filter{Verdicts: []string{"allow", "deny"}}}, "28 29"},
		"kind":          {ReadOptions{Last: All, Filter: Filter{Kinds: []Kind{Policy}}}, "15"},
		"kinds":         {ReadOptions{Last: 1, Filter: Filter{Kinds: []Kind{Policy, Session}}}, "15"},
		"since":         {ReadOptions{Last: All, Filter: Filter{Since: epoch.Add(28 * time.Hour)}}, "28 29"},
		"since in old":  {ReadOptions{Last: 2, Filter: Filter{Since: epoch.Add(9 * time.Hour), Verdicts: []string{"allow"}}}, "20 25"},
		"more than all": {ReadOptions{Last: 1 << 30, Filter: Filter{Session: "s-1", Agent: "odd"}}, "1 7 13 19 25"},
	} {
		var ids []string
		summary, err := Read(context.Background(), dir, c.o, func(r Record) error {
			ids = append(ids, r.Event.ID)
			return nil
		})
		if got := strings.Join(ids, " "); got != c.want || err != nil || summary.Skipped != 0 {
			t.Errorf("%s: %q, want %q; %v %v", name, got, c.want, summary, err)
		}
	}
}

func TestReadSkipsWhatIsNoEvent(t *testing.T) {
	dir := t.TempDir()
	good := `{"schema":1,"id":"e","kind":"system","time":"2026-01-01T00:00:00Z"}` + "\n"
	text := good + "garbage\n" + good + strings.Repeat("x", 3*maxLine) + "\n" + good + `{"schema":9}` + "\n" + good + good[:20]
	if err := os.WriteFile(currentPath(dir), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, last := range []int{All, 100} {
		n := 0
		summary, err := Read(context.Background(), dir, ReadOptions{Last: last}, func(Record) error { n++; return nil })
		if n != 4 || err != nil || summary.Skipped != 3 {
			t.Errorf("last %d: %d events, %+v, %v", last, n, summary, err)
		}
		said := fmt.Sprint(summary.Examples)
		for _, want := range []string{"events.jsonl:2: not an event", "events.jsonl:4: longer than 1 MiB", "events.jsonl:6: schema 9"} {
			if !strings.Contains(said, want) {
				t.Errorf("last %d: %s lacks %q", last, said, want)
			}
		}
	}
}

func TestReadEndsWithItsCallback(t *testing.T) {
	stop := errors.New("stop")
	if _, err := Read(context.Background(), fixture(t), ReadOptions{Last: All}, func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, fixture(t), ReadOptions{Last: All}, func(Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := Read(ctx, filepath.Join(t.TempDir(), "none"), ReadOptions{Last: All}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// following runs Read with Follow; events come on the channel, and stop ends it.
func following(t *testing.T, dir string, last int) (events chan string, stop func() Summary) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events = make(chan string, 1<<16)
	done := make(chan Summary, 1)
	var idle atomic.Int32
	go func() {
		summary, err := Read(ctx, dir, ReadOptions{Last: last, Follow: true, Poll: time.Millisecond,
			Idle: func() error { idle.Add(1); return nil }}, func(r Record) error {
			events <- r.Event.ID
			return nil
		})
		if err != nil {
			t.Errorf("follow: %v", err)
		}
		done <- summary
	}()
	for idle.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	return events, func() Summary { cancel(); return <-done }
}

func expect(t *testing.T, events chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		select {
		case got := <-events:
			if got != w {
				t.Fatalf("event %q, want %q", got, w)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("event %q did not come", w)
		}
	}
}

func TestFollowAcrossRotations(t *testing.T) {
	dir := t.TempDir()
	o := quick(dir)
	o.MaxBytes, o.Keep = 1000, 1000
	events, stop := following(t, dir, All) // before there is a log
	w := mustOpen(t, o)
	var want []string
	for i := range 2000 {
		id := strconv.Itoa(i)
		want = append(want, id)
		w.Write(action("a", id))
		if i%100 == 0 {
			w.Flush()
		}
	}
	w.Close()
	expect(t, events, want...)
	if s := stop(); s.Skipped != 0 {
		t.Errorf("skipped: %v", s.Examples)
	}
	if len(events) != 0 {
		t.Errorf("%d events too many", len(events))
	}
}

func TestFollowTornLineTruncationAndRemoval(t *testing.T) {
	dir := t.TempDir()
	lineOf := func(id string) string {
		ev := Event{Schema: Schema, ID: id, Kind: System, Time: epoch}
		b, _ := Encode(&ev)
		return string(b)
	}
	add := func(s string) {
		t.Helper()
		f, err := os.OpenFile(currentPath(dir), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	add(lineOf("old") + lineOf("one"))
	events, stop := following(t, dir, 1)
	expect(t, events, "one")

	two := lineOf("two")
	add(two[:10])
	time.Sleep(5 * time.Millisecond)
	add(two[10:])
	expect(t, events, "two")

	// A crash's half line, taken out by the next start.
	info, _ := os.Stat(currentPath(dir))
	add(two[:25])
	time.Sleep(5 * time.Millisecond)
	if err := os.Truncate(currentPath(dir), info.Size()); err != nil {
		t.Fatal(err)
	}
	add(lineOf("three"))
	expect(t, events, "three")

	if err := os.Truncate(currentPath(dir), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	add(lineOf("four"))
	expect(t, events, "four")

	if err := os.Remove(currentPath(dir)); err != nil {
		t.Fatal(err)
	}
	add(lineOf("five"))
	expect(t, events, "five")
	if s := stop(); s.Skipped != 1 || !strings.Contains(s.Examples[0].Error(), "was removed") {
		t.Errorf("summary %+v", s)
	}
}

func TestRotatedNames(t *testing.T) {
	a, b := rotatedName(epoch), rotatedName(epoch.Add(1))
	if !slices.IsSorted([]string{a, b}) || a == b {
		t.Errorf("%s, %s", a, b)
	}
	if got, ok := rotatedTime(b); !ok || !got.Equal(epoch.Add(1)) {
		t.Errorf("%v %v", got, ok)
	}
	for _, name := range []string{currentName, "events-.jsonl", "events-x.jsonl", a + ".gz", "other"} {
		if _, ok := rotatedTime(name); ok {
			t.Errorf("%s taken for a rotated file", name)
		}
	}
}

// A file that is rotated between its opening and the listing is read once.
func TestReadDuringRotation(t *testing.T) {
	dir := fixture(t)
	if err := os.Link(currentPath(dir), filepath.Join(dir, rotatedName(epoch.Add(20*time.Hour)))); err != nil {
		t.Fatal(err)
	}
	n := 0
	if _, err := Read(context.Background(), dir, ReadOptions{Last: All}, func(r Record) error {
		if r.Event.ID != strconv.Itoa(n) {
			t.Errorf("event %d is %s", n, r.Event.ID)
		}
		n++
		return nil
	}); err != nil || n != 30 {
		t.Errorf("%d events, %v", n, err)
	}
}
