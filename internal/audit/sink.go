// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"
)

const (
	maxBatch   = 256 << 10        // bytes that are written at once
	retryEvery = time.Second      // with nothing new to write, after a failure
	sayEvery   = 30 * time.Second // while it goes on failing
)

// sink encodes batches and writes them. It belongs to the Writer's goroutine.
type sink struct {
	options *Options
	lost    *losses
	file    logFile
	enc     *encoder
	lines   []line
	first   time.Time         // of the first line
	used    []Event           // the batch before, to be used again
	kept    []Event           // of a ring, that could not be written
	told    map[string]uint64 // events lost in the kernel that the log tells of, by agent

	missing  error // why there is no file to write to
	failing  bool
	lastSaid time.Time // of failing
	unsaid   uint64    // lost since lastSaid
	oddities time.Time // when something less than a failed write was last logged
}

// line is one encoded event that waits in the encoder.
type line struct {
	end    int    // in the encoder's buffer
	ifLost Loss   // what is lost if it cannot be written
	tells  Loss   // what the log tells of once it is written
	of     *Event // of a ring: it is kept if it cannot be written
}

func newSink(o *Options, lost *losses) (*sink, error) {
	s := &sink{options: o, lost: lost, enc: newEncoder(), told: map[string]uint64{},
		file: logFile{dir: o.Dir, group: o.Group, max: o.MaxBytes, keep: o.Keep}}
	r, err := s.file.open()
	if err != nil {
		return nil, err
	}
	switch {
	case r.removed > 0:
		s.say("the log's last line was cut short by a crash and was removed", map[string]string{"bytes": strconv.FormatInt(r.removed, 10)})
	case r.terminated:
		s.say("the log's last line lacked its newline after a crash and was ended", nil)
	}
	s.flush()
	return s, nil
}

// spare returns memory for the next queue. A past burst's is given back.
func (s *sink) spare() []Event {
	b := s.used
	s.used = nil
	if cap(b) > 1<<12 && len(b) < cap(b)/8 {
		return nil
	}
	clear(b)
	return b[:0]
}

// retry is a timer while there is something to say that no event may trigger.
func (s *sink) retry() <-chan time.Time {
	if !s.failing {
		return nil
	}
	return time.After(retryEvery)
}

// write appends the losses that the log does not tell yet, and the batch. It
// returns the events that must be written later.
func (s *sink) write(batch []Event) (again []Event) {
	s.used = batch
	if s.missing = nil; s.file.moved() {
		s.reopen()
	}
	for _, x := range s.lost.pending() {
		s.add(s.lossEvent(x), line{tells: x})
	}
	for i := range batch {
		ev := &batch[i]
		l := line{ifLost: Loss{ev.Agent, OnWrite, occurrences(ev)}}
		if ev.kept() {
			if len(s.kept) > 0 { // their order is that of the ring
				s.kept = append(s.kept, *ev)
				continue
			}
			l.of = ev
		}
		s.add(ev, l)
		if s.enc.buf.Len() >= maxBatch {
			s.flush()
		}
	}
	s.flush()
	again, s.kept = s.kept, nil
	return again
}

func (s *sink) lossEvent(x Loss) *Event {
	ev := s.event(lossMessage, map[string]string{"stage": string(x.Stage), "count": strconv.FormatUint(x.Count, 10)})
	ev.Agent = x.Agent
	return ev
}

// say puts an event of the log itself into the log.
func (s *sink) say(message string, fields map[string]string) {
	s.options.Log.Warn(message, "directory", s.options.Dir, "fields", fields)
	s.add(s.event(message, fields), line{ifLost: Loss{Stage: OnWrite, Count: 1}})
}

func (s *sink) event(message string, fields map[string]string) *Event {
	now := s.options.Clock()
	return &Event{Schema: Schema, ID: s.options.NewID(now), Kind: System, Time: now, Message: message, Fields: fields}
}

func (s *sink) add(ev *Event, l line) {
	if err := s.enc.add(ev); err != nil {
		s.lose(l.ifLost)
		s.odd("an event cannot be written", err)
		return
	}
	if len(s.lines) == 0 {
		s.first = ev.Time
	}
	l.end = s.enc.buf.Len()
	s.lines = append(s.lines, l)
}

// flush writes what add gathered. Of the lines that cannot be written those of a
// ring are kept, which bounds them. The others are lost: what waits in memory must
// stay bounded, and the newest are worth as much.
func (s *sink) flush() {
	if len(s.lines) == 0 {
		return
	}
	if s.missing == nil && s.file.size > 0 && s.file.size+int64(s.enc.buf.Len()) > s.file.max {
		if err := s.file.rotate(); err != nil {
			s.odd("the audit log goes on in a file that is over its size", err)
		}
	}
	n, err := 0, s.missing
	if err == nil {
		n, err = s.file.append(s.enc.buf.Bytes(), s.lines, s.first)
	}
	if n > 0 {
		s.options.Wrote(s.lines[n-1].end)
	}
	s.wrote(s.lines[:n])
	for _, l := range s.lines[n:] {
		if l.of != nil {
			s.kept = append(s.kept, *l.of)
		} else {
			s.lose(l.ifLost)
		}
	}
	if err != nil {
		s.failed(err)
	} else {
		s.recovered()
	}
	s.enc.buf.Reset()
	s.lines = s.lines[:0]
}

// wrote notes that lines are in the log.
func (s *sink) wrote(lines []line) {
	var position uint64
	for _, l := range lines {
		s.lost.told(l.tells)
		if l.tells.Stage == InKernel {
			s.told[l.tells.Agent] += l.tells.Count
		}
		if l.of != nil {
			position = l.of.Ring.End
		}
	}
	if position != 0 {
		s.options.Written(position)
	}
}

func (s *sink) lose(x Loss) {
	if x.Count == 0 {
		return
	}
	s.lost.add(x.Agent, x.Stage, x.Count)
	s.options.Lost(x)
	s.unsaid += x.Count
}

// failed complains: at once, and then every half minute.
func (s *sink) failed(err error) {
	now := s.options.Clock()
	if s.failing && now.Sub(s.lastSaid) < sayEvery {
		return
	}
	s.failing, s.lastSaid = true, now
	s.options.Log.Error("the audit log cannot be written; free some space or repair the disk",
		"error", err, "directory", s.options.Dir, "lost", s.unsaid)
	s.unsaid = 0
}

func (s *sink) odd(message string, err error) {
	now := s.options.Clock()
	if !s.oddities.IsZero() && now.Sub(s.oddities) < sayEvery {
		return
	}
	s.oddities = now
	s.options.Log.Error(message, "error", err, "directory", s.options.Dir)
}

func (s *sink) recovered() {
	if !s.failing {
		return
	}
	s.failing = false
	s.options.Log.Info("the audit log can be written again", "directory", s.options.Dir, slog.Uint64("lost", s.unsaid))
	s.unsaid = 0
}

// reopen starts a new file where someone took the old one away. Until that
// works nothing is written: a file without a name is no log.
func (s *sink) reopen() {
	old := s.file.f
	s.missing = makeDir(s.options.Dir, s.options.Group)
	if s.missing == nil {
		_, s.missing = s.file.open()
	}
	if s.missing != nil {
		s.file.f = old
		return
	}
	old.Close()
	s.say("the log's file was moved or removed by another program; a new one was started", nil)
}

func (s *sink) close() error {
	s.file.retired.Wait()
	if err := syncClose(s.file.f); err != nil {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}
