// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// quick are options whose batches are written at once.
func quick(dir string) Options { return Options{Dir: dir, Delay: time.Millisecond} }

func mustOpen(t testing.TB, o Options) *Writer {
	t.Helper()
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func action(agent, path string) Event {
	return Event{ID: path, Kind: Action, Agent: agent, Verdict: "deny", Operation: "open",
		Access: []string{"read"}, Object: &Object{Type: "file", Path: path}}
}

// readAll returns what the log holds, and fails on a line that is none.
func readAll(t testing.TB, dir string) []Event {
	t.Helper()
	var events []Event
	summary, err := Read(context.Background(), dir, ReadOptions{Last: All}, func(r Record) error {
		events = append(events, r.Event)
		return nil
	})
	if err != nil || summary.Skipped > 0 {
		t.Fatalf("read the log: %v, skipped %v", err, summary.Examples)
	}
	return events
}

func TestWriterKeepsOrderAcrossRotation(t *testing.T) {
	dir := t.TempDir()
	o := quick(dir)
	o.MaxBytes, o.Keep = 4096, 1000
	w := mustOpen(t, o)
	const n = 500
	for i := range n {
		w.Write(action("a", strconv.Itoa(i)))
		if i%20 == 0 {
			w.Flush()
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	events := readAll(t, dir)
	if len(events) != n {
		t.Fatalf("%d events, want %d", len(events), n)
	}
	for i, ev := range events {
		if ev.ID != strconv.Itoa(i) {
			t.Fatalf("event %d is %s", i, ev.ID)
		}
	}
	names, _ := rotatedFiles(dir)
	if len(names) < 10 {
		t.Errorf("only %d rotated files", len(names))
	}
	for _, name := range append(names, currentName) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Size() > 3*4096 || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestRotationPrunesAndNamesStayInOrder(t *testing.T) {
	dir := t.TempDir()
	o := quick(dir)
	o.MaxBytes, o.Keep = 1, 3
	w := mustOpen(t, o)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 8 { // the clock goes backwards, and stands still
		ev := action("a", strconv.Itoa(i))
		ev.Time = start.Add(-time.Duration(i/2) * time.Hour)
		w.Write(ev)
		w.Flush()
	}
	w.Close()
	events := readAll(t, dir)
	var ids []string
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	if got := strings.Join(ids, " "); got != "4 5 6 7" {
		t.Errorf("the log holds %s, want the last three files and the current one", got)
	}
}

func TestRepair(t *testing.T) {
	good := `{"schema":1,"id":"e-1","kind":"system","time":"2026-01-01T00:00:00Z"}`
	for name, c := range map[string]struct {
		content, kept, said string
	}{
		"clean":         {good + "\n", "e-1", ""},
		"torn":          {good + "\n" + good[:30], "e-1", "was removed"},
		"only torn":     {good[:30], "", "was removed"},
		"zeros":         {good + "\n" + strings.Repeat("\x00", 5000), "e-1", "was removed"},
		"long zeros":    {good + "\n" + strings.Repeat("\x00", 3<<20), "e-1", "was removed"},
		"not ended":     {good + "\n" + good, "e-1 e-1", "was ended"},
		"only newlines": {"", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(currentPath(dir), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			w := mustOpen(t, quick(dir))
			w.Write(Event{ID: "after", Kind: System})
			w.Close()
			var ids, said []string
			for _, ev := range readAll(t, dir) {
				if ev.ID != "after" && !strings.HasPrefix(ev.ID, "e-") { // the writer's own
					said = append(said, ev.Message)
				} else {
					ids = append(ids, ev.ID)
				}
			}
			want := strings.TrimSpace(c.kept + " after")
			if got := strings.Join(ids, " "); got != want {
				t.Errorf("events %q, want %q", got, want)
			}
			if got := strings.Join(said, ";"); (c.said == "") != (got == "") || !strings.Contains(got, c.said) {
				t.Errorf("said %q, want %q", got, c.said)
			}
		})
	}
}

// told sums the losses that the log tells of.
func told(t *testing.T, events []Event) map[Loss]uint64 {
	t.Helper()
	m := map[Loss]uint64{}
	for _, ev := range events {
		if ev.Message != "events were lost" {
			continue
		}
		n, err := strconv.ParseUint(ev.Fields["count"], 10, 64)
		if err != nil || ev.Kind != System {
			t.Errorf("loss event %+v: %v", ev, err)
		}
		m[Loss{Agent: ev.Agent, Stage: Stage(ev.Fields["stage"])}] += n
	}
	return m
}

// A full disk is played by the limit of a file's size: writes stop half way
// through a line, exactly as with ENOSPC. The limit is one of the process, so
// the test runs in a child.
func TestFullDiskLosesCountsAndTells(t *testing.T) {
	const variable = "BAILIFF_TEST_FILE_LIMIT"
	if os.Getenv(variable) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	var logged lockedBuffer
	var mu sync.Mutex
	counted := map[string]uint64{}
	o := quick(dir)
	o.Log = slog.New(slog.NewTextHandler(&logged, nil))
	var written []uint64
	o.Written = func(position uint64) { written = append(written, position) }
	o.Lost = func(x Loss) { mu.Lock(); counted[x.Agent] += x.Count; mu.Unlock() }
	w := mustOpen(t, o)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 5000, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	const n = 300
	for i := range n {
		w.Write(action([]string{"a", "b"}[i%2], strconv.Itoa(i)))
		ring := action("r", strconv.Itoa(i))
		ring.Ring = Ring{ID: "ring", End: uint64(8 * (i + 1))}
		w.Write(ring)
		if i%10 == 0 {
			w.Flush()
		}
	}
	w.Flush()
	if last := written[len(written)-1]; last == 8*n {
		t.Error("all is said to be written, with the disk full")
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	w.Write(action("a", "after"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	events := readAll(t, dir)
	if end := ringEnd(t, events); end != 8*n || !slices.IsSorted(written) || written[len(written)-1] != end {
		t.Errorf("events of the ring are in the log up to %d, and are said to be up to %v; want %d", end, written, 8*n)
	}
	kept := map[string]uint64{}
	for _, ev := range events {
		if ev.Kind == Action && ev.ID != "after" && ev.Ring.ID == "" {
			kept[ev.Agent]++
		}
	}
	tells := told(t, events)
	for _, agent := range []string{"a", "b"} {
		lost := tells[Loss{Agent: agent, Stage: OnWrite}]
		if kept[agent] == 0 || lost == 0 || kept[agent]+lost != n/2 || counted[agent] != lost {
			t.Errorf("agent %s: %d kept, %d told lost, %d counted, want %d together", agent, kept[agent], lost, counted[agent], n/2)
		}
	}
	if events[len(events)-1].ID != "after" {
		t.Errorf("the last event is %+v", events[len(events)-1])
	}
	if n := strings.Count(logged.String(), "cannot be written"); n != 1 {
		t.Errorf("complained %d times within half a minute:\n%s", n, logged.String())
	}
	if !strings.Contains(logged.String(), "can be written again") {
		t.Errorf("nothing said of the recovery:\n%s", logged.String())
	}
}

// ringEnd fails the test unless each event of the ring is there once, in order, and
// returns where the last one ends.
func ringEnd(t *testing.T, events []Event) (end uint64) {
	t.Helper()
	for _, ev := range events {
		if ev.Ring.ID == "" {
			continue
		}
		if end += 8; ev.Ring.End != end {
			t.Fatalf("the event at %d of the ring is where that at %d should be", ev.Ring.End, end)
		}
	}
	return end
}

func TestFullQueueNeverBlocks(t *testing.T) {
	o := Options{Dir: t.TempDir(), Queue: 10, Delay: time.Hour}
	w := mustOpen(t, o)
	w.mu.Lock()
	w.bounded = o.Queue // a writer that has fallen behind
	w.mu.Unlock()
	ev := action("a", "x")
	ev.Count = 7
	w.Write(ev)
	w.Write(action("b", "y"))
	want := []Loss{{"a", InQueue, 7}, {"b", InQueue, 1}}
	if got := w.Losses(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("losses %v, want %v", got, want)
	}
	w.Lost(Loss{"a", InKernel, 3})
	w.Lost(Loss{"a", InKernel, 0})
	w.Write(Event{Kind: Action, Agent: "r", Ring: Ring{ID: "ring", End: 8}}) // bounded by its ring
	w.Close()
	tells := told(t, readAll(t, o.Dir))
	if tells[Loss{Agent: "a", Stage: InQueue}] != 7 || tells[Loss{Agent: "b", Stage: InQueue}] != 1 || tells[Loss{Agent: "a", Stage: InKernel}] != 3 || len(tells) != 3 {
		t.Errorf("the log tells %v", tells)
	}
	w.Write(action("c", "late"))
	if got := w.Losses(); len(got) != 4 || got[3].Agent != "c" {
		t.Errorf("an event after Close: %v", got)
	}
}

func TestFileTakenAway(t *testing.T) {
	dir := t.TempDir()
	w := mustOpen(t, quick(dir))
	w.Write(action("a", "one"))
	w.Flush()
	if err := os.Remove(currentPath(dir)); err != nil {
		t.Fatal(err)
	}
	w.Write(action("a", "two"))
	w.Flush()
	events := readAll(t, dir)
	if len(events) != 2 || !strings.Contains(events[0].Message, "moved or removed") || events[1].ID != "two" {
		t.Errorf("%+v", events)
	}
}

// What cannot be written anywhere is lost, not put into a file without a name.
func TestDirectoryTakenAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	w := mustOpen(t, quick(dir))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.Write(action("a", "lost"))
	w.Flush()
	if got := w.Losses(); len(got) != 1 || got[0] != (Loss{"a", OnWrite, 1}) {
		t.Errorf("losses %v", got)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	w.Write(action("a", "kept"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	events := readAll(t, dir)
	if tells := told(t, events); tells[Loss{Agent: "a", Stage: OnWrite}] != 1 || events[len(events)-1].ID != "kept" {
		t.Errorf("%+v", events)
	}
}

func TestOpenSaysWhatFailed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: file}); err == nil || !strings.Contains(err.Error(), "open the log") {
		t.Errorf("%v", err)
	}
}

func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	w := mustOpen(t, Options{Dir: dir, MaxBytes: 1 << 20, Keep: 100})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				w.Write(action("a", fmt.Sprintf("%d-%d", g, i)))
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(readAll(t, dir)); n != 8000 || len(w.Losses()) != 0 {
		t.Errorf("%d events, losses %v", n, w.Losses())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// BenchmarkWriter is the sustained rate: nothing may be lost.
func BenchmarkWriter(b *testing.B) {
	w := mustOpen(b, Options{Dir: b.TempDir()})
	ev := sample()
	n := 0
	for b.Loop() {
		w.Write(ev)
		if n++; n%20000 == 0 {
			w.Flush()
		}
	}
	w.Flush()
	b.StopTimer()
	if lost := w.Losses(); len(lost) > 0 {
		b.Fatalf("lost %v", lost)
	}
}
