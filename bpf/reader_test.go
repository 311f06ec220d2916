// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"strconv"
	"testing"
	"time"
)

// tell has a session be denied n connections, each to a port of its own.
func (s *confined) tell(first, n int) {
	s.t.Helper()
	fd := s.socketOf("stream", "")
	for port := first; port < first+n; port++ {
		s.want(13, "connect", fd, "127.0.0.1:"+strconv.Itoa(port))
	}
	s.allowed("close", fd)
}

// again takes a new reader in place of the harness's, as a daemon does that returns.
func (k *kernel) again(t *testing.T, position uint64) (waiting int) {
	t.Helper()
	if err := k.reader.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if k.reader, err = k.NewReader(); err != nil {
		t.Fatal(err)
	}
	if waiting, err = k.reader.Resume(position); err != nil {
		t.Fatal(err)
	}
	return waiting
}

// read returns the events that are there, uncommitted.
func (k *kernel) read(t *testing.T) (list []*Event) {
	t.Helper()
	for {
		ev, err := k.reader.Read(time.Now().Add(2 * lookEvery))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, ev)
	}
}

func wantPorts(t *testing.T, events []*Event, first, n int) {
	t.Helper()
	if len(events) != n {
		t.Fatalf("%d events, want %d", len(events), n)
	}
	for i, ev := range events {
		if int(ev.Port) != first+i {
			t.Fatalf("event %d is about port %d, want %d", i, ev.Port, first+i)
		}
		if i > 0 && ev.Position <= events[i-1].Position {
			t.Fatalf("event %d is at %d, after one at %d", i, ev.Position, events[i-1].Position)
		}
	}
}

// What was read and not committed is there for who comes next, once.
func TestCommit(t *testing.T) {
	k := basic(t)
	s := k.start(t, rules{})
	name := k.reader.Ring()
	const n = 40
	s.tell(1000, n)
	first := k.read(t)
	wantPorts(t, first, 1000, n)
	if waiting := k.again(t, 0); waiting != n {
		t.Errorf("%d records wait, want %d", waiting, n)
	}
	wantPorts(t, k.read(t), 1000, n)
	if err := k.reader.Commit(first[9].Position); err != nil {
		t.Fatal(err)
	}
	if waiting := k.again(t, 0); waiting != n-10 {
		t.Errorf("%d records wait after 10 were committed, want %d", waiting, n-10)
	}
	// Of ten more it is known that they were read, although they were not committed.
	if waiting := k.again(t, first[19].Position); waiting != n-20 {
		t.Errorf("%d records wait after 20, want %d", waiting, n-20)
	}
	wantPorts(t, k.read(t), 1020, n-20)
	if err := k.reader.Commit(first[n-1].Position); err != nil {
		t.Fatal(err)
	}
	if waiting := k.again(t, first[5].Position); waiting != 0 {
		t.Errorf("%d records wait after all were committed", waiting)
	}
	if got := k.reader.Ring(); got != name {
		t.Errorf("the ring's name was %q and is %q", name, got)
	}
	if _, err := k.reader.Resume(first[n-1].Position + 1<<30); err == nil {
		t.Error("resumed beyond the end of the ring")
	}
}

// A ring that is read round and round loses nothing, and one that is not committed
// fills up, which is counted.
func TestRingWraps(t *testing.T) {
	k := basic(t)
	s := k.start(t, rules{})
	var size uint64
	for round := range 5 {
		first := 1000 + 400*round // the same again would be folded
		s.tell(first, 400)
		events := k.read(t)
		wantPorts(t, events, first, 400)
		size = (events[399].Position - events[0].Position) / 399
		if round%2 == 0 {
			if err := k.reader.Commit(events[399].Position); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, before, err := k.Counts()
	if err != nil {
		t.Fatal(err)
	}
	fit := k.reader.Size() / int(size)
	const more = 100
	s.tell(10000, fit+more)
	events := k.read(t)
	_, after, err := k.Counts()
	if err != nil {
		t.Fatal(err)
	}
	dropped := int(after[testSubject] - before[testSubject])
	if len(events)+dropped != fit+more || dropped < more {
		t.Errorf("%d events were told and %d dropped, of %d", len(events), dropped, fit+more)
	}
	wantPorts(t, events, 10000, len(events))
	if err := k.reader.Commit(events[len(events)-1].Position); err != nil {
		t.Fatal(err)
	}
	s.tell(30000, 10)
	wantPorts(t, k.events(t), 30000, 10)
}

func TestFlushAndStop(t *testing.T) {
	k := basic(t)
	s := k.start(t, rules{})
	s.tell(1000, 3)
	if err := k.reader.Flush(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range 3 {
		ev, err := k.reader.Read(time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		last = ev.Position
	}
	if ev, err := k.reader.Read(time.Time{}); !errors.Is(err, ErrFlushed) {
		t.Errorf("read %v, %v after a flush", ev, err)
	}
	if _, err := k.reader.Read(time.Now().Add(time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after that: %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := k.reader.Read(time.Time{})
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := k.reader.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read that was stopped: %v", err)
	}
	if err := k.reader.Flush(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a flush after the stop: %v", err)
	}
	if err := k.reader.Commit(last); err != nil {
		t.Errorf("a commit after the stop: %v", err)
	}
	old := k.reader
	if waiting := k.again(t, 0); waiting != 0 {
		t.Errorf("%d records wait after a commit", waiting)
	}
	if err := old.Commit(last); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a commit to a closed reader: %v", err)
	}
}

// What is skipped does not stay in the ring, and takes nothing before it along
// that is not committed.
func TestSkip(t *testing.T) {
	k := basic(t)
	s := k.start(t, rules{})
	skip := func() {
		t.Helper()
		ev, err := k.reader.Read(time.Now().Add(5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.reader.Skip(ev); err != nil {
			t.Fatal(err)
		}
	}
	s.tell(1000, 2)
	skip()
	skip()
	if waiting := k.again(t, 0); waiting != 0 {
		t.Errorf("%d records wait that were skipped", waiting)
	}
	s.tell(1002, 3)
	first, err := k.reader.Read(time.Now().Add(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	skip()
	if got := k.reader.ring.consumer.Load(); got >= first.Position {
		t.Error("an event that is not committed went with one that was skipped")
	}
	if err := k.reader.Commit(first.Position); err != nil {
		t.Fatal(err)
	}
	skip()
	if waiting := k.again(t, 0); waiting != 0 {
		t.Errorf("%d records wait", waiting)
	}
}
