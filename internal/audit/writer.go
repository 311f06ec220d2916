// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Options configure a Writer. Only Dir is required.
type Options struct {
	Dir      string
	Group    int           // gid that may read the log; 0 or less leaves the group alone
	MaxBytes int64         // size at which the file is rotated; 64 MiB
	Keep     int           // rotated files that are kept; 16
	Queue    int           // events that may wait to be written; 65536
	Delay    time.Duration // the longest an event waits in memory; 50 ms
	Log      *slog.Logger
	Clock    func() time.Time

	// NewID names an event of a time. By default that is the time and a count: unique
	// on this host, and sorted as events happened.
	NewID func(time.Time) string
	// Lost and Wrote feed the metrics. They are called from any goroutine, must not
	// block and must not call the Writer.
	Lost  func(Loss)
	Wrote func(bytes int)
	// Written says that every event of a ring up to a position is in the log: its
	// place in the ring may be used again. It is called by the Writer's goroutine.
	Written func(position uint64)
	// Span is how many bytes of a ring may wait to be written before the Delay is
	// cut short; 64 KiB.
	Span int
}

func (o *Options) setDefaults() {
	if o.Group <= 0 {
		o.Group = -1
	}
	o.MaxBytes = orDefault(o.MaxBytes, 64<<20)
	o.Keep = orDefault(o.Keep, 16)
	o.Queue = orDefault(o.Queue, 1<<16)
	o.Delay = orDefault(o.Delay, 50*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.NewID == nil {
		o.NewID = idMaker()
	}
	if o.Lost == nil {
		o.Lost = func(Loss) {}
	}
	if o.Wrote == nil {
		o.Wrote = func(int) {}
	}
	if o.Written == nil {
		o.Written = func(uint64) {}
	}
	o.Span = orDefault(o.Span, 64<<10)
}

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Writer appends events to the log in a goroutine of its own. Its methods may be
// called from any goroutine. There must be one Writer a directory.
type Writer struct {
	options Options
	lost    *losses

	mu      sync.Mutex
	queue   []Event
	bounded int    // events of the queue that belong to no ring
	hurried uint64 // position in the ring at the last hurry
	closed  bool

	wake  chan struct{}      // the queue is no longer empty
	hurry chan struct{}      // the queue is half full
	sync  chan chan struct{} // Flush
	marks chan chan Mark     // Mark
	stop  chan struct{}
	done  chan struct{}
	sink  *sink // the goroutine's
	final error // of the last write; read after done
}

// Open opens the log in o.Dir, which it creates with mode 0750, repairs a last
// line that a crash cut short (and says so in the log), and starts writing.
// The caller must Close the Writer.
func Open(o Options) (*Writer, error) {
	o.setDefaults()
	if err := makeDir(o.Dir, o.Group); err != nil {
		return nil, err
	}
	w := &Writer{
		options: o, lost: newLosses(),
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), sync: make(chan chan struct{}),
		marks: make(chan chan Mark), stop: make(chan struct{}), done: make(chan struct{}),
	}
	s, err := newSink(&w.options, w.lost)
	if err != nil {
		return nil, err
	}
	w.sink = s
	go w.run()
	return w, nil
}

func makeDir(dir string, group int) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create the log's directory: %w", err)
	}
	if group < 0 {
		return nil
	}
	if err := os.Chown(dir, -1, group); err != nil {
		return fmt.Errorf("give the log's directory to group %d: %w", group, err)
	}
	return nil
}

// Write queues an event and returns at once. It sets Schema, and ID and Time where
// they are zero; whatever the event points to belongs to the Writer from here on. An
// event that finds the queue full, or the Writer closed, is lost and counted.
//
// An event of a Ring is never lost here: it is still in the ring. What waits of a
// ring is bounded by the ring; if it cannot be written it is tried again, in order,
// until it can; and a Writer that is closed leaves it to the next one.
func (w *Writer) Write(ev Event) {
	ev.Schema = Schema
	if ev.Time.IsZero() {
		ev.Time = w.options.Clock()
	}
	if ev.ID == "" {
		ev.ID = w.options.NewID(ev.Time)
	}
	taken, first, hurry := w.enqueue(&ev)
	switch {
	case !taken && !ev.kept():
		w.Lost(Loss{ev.Agent, InQueue, occurrences(&ev)})
	case hurry:
		poke(w.hurry)
		fallthrough
	case first:
		poke(w.wake)
	}
}

// enqueue says whether the event was taken, whether it is the first in the queue,
// and whether the queue should be written soon.
func (w *Writer) enqueue(ev *Event) (taken, first, hurry bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return false, false, false
	case ev.kept():
		if hurry = ev.Ring.End-w.hurried > uint64(w.options.Span); hurry {
			w.hurried = ev.Ring.End
		}
	case w.bounded >= w.options.Queue:
		return false, false, false
	default:
		w.bounded++
		hurry = w.bounded == w.options.Queue/2
	}
	w.queue = append(w.queue, *ev)
	return true, len(w.queue) == 1, hurry
}

// kept says that the event stays where it came from until it is written.
func (ev *Event) kept() bool { return ev.Ring.ID != "" }

// occurrences is how many events one line stands for.
func occurrences(ev *Event) uint64 { return max(ev.Count, 1) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// NewID names an event that is to be written later, now.
func (w *Writer) NewID() string { return w.options.NewID(w.options.Clock()) }

// Lost counts events that were lost before they reached the Writer; the log will
// tell of them as of its own.
func (w *Writer) Lost(x Loss) {
	if x.Count == 0 {
		return
	}
	w.lost.add(x.Agent, x.Stage, x.Count)
	w.options.Lost(x)
	poke(w.wake)
}

// Losses returns all that was lost since Open, sorted by agent and stage.
func (w *Writer) Losses() []Loss { return w.lost.all() }

// Flush returns when every event that was queued before the call has been handed
// to the operating system, counted as lost, or found that its ring must keep it.
func (w *Writer) Flush() {
	answer := make(chan struct{})
	select {
	case w.sync <- answer:
		<-answer
	case <-w.done:
	}
}

// Close writes what is queued, syncs the file to disk and closes it. Its error
// says how many events the log lacks without telling so. A second Close
// returns the same.
func (w *Writer) Close() error {
	w.mu.Lock()
	first := !w.closed
	w.closed = true
	w.mu.Unlock()
	if first {
		close(w.stop)
	}
	<-w.done
	return w.final
}

func (w *Writer) run() {
	defer close(w.done)
	for {
		var answer chan struct{}
		select {
		case <-w.wake:
			answer = w.gather()
		case answer = <-w.sync:
		case mark := <-w.marks:
			mark <- w.sink.mark()
			continue
		case <-w.sink.retry():
		case <-w.stop:
			w.sink.write(w.take())
			w.final = w.finish()
			return
		}
		w.putBack(w.sink.write(w.take()))
		if answer != nil {
			close(answer)
		}
	}
}

// gather waits for more events to write with the first one, unless someone
// waits for it.
func (w *Writer) gather() (answer chan struct{}) {
	t := time.NewTimer(w.options.Delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.hurry:
	case answer = <-w.sync:
	case <-w.stop: // run sees it again: stop is closed, not sent to
	}
	return answer
}

func (w *Writer) take() []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch := w.queue
	w.queue, w.bounded = w.sink.spare(), 0
	return batch
}

// putBack puts events of a ring that could not be written in front of the others.
func (w *Writer) putBack(events []Event) {
	if len(events) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queue = append(events, w.queue...)
}

func (w *Writer) finish() error {
	err := w.sink.close()
	if n := sum(w.lost.pending()); n > 0 {
		err = errors.Join(err, fmt.Errorf("%d lost events are not told of in the log", n))
	}
	return err
}
