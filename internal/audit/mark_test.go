// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"os"
	"strconv"
	"testing"
)

// A tail begins where the mark was made, however often the log was rotated since.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	o := quick(dir)
	o.MaxBytes = 2000
	w := mustOpen(t, o)
	write := func(from, to int) {
		for i := from; i < to; i++ {
			ev := action("a", strconv.Itoa(i))
			ev.Ring = Ring{ID: "ring", End: uint64(8 * (i + 1))}
			w.Write(ev)
			w.Write(Event{Kind: Session, Session: strconv.Itoa(i), Message: `not "kind":"action"`})
			w.Flush()
		}
	}
	write(0, 3)
	w.Lost(Loss{"a", InKernel, 5})
	w.Flush()
	mark, err := w.Mark()
	if err != nil || mark.Told["a"] != 5 || mark.Offset == 0 {
		t.Fatalf("%+v, %v", mark, err)
	}
	if tail, err := ReadTail(dir, mark); err != nil || len(tail.Events) != 0 || tail.Ring.ID != "" || !tail.Last.IsZero() {
		t.Errorf("behind the end there is %+v, %v", tail, err)
	}
	write(3, 20)
	names, err := rotatedFiles(dir)
	if err != nil || len(names) < 2 {
		t.Fatalf("rotated into %v, %v", names, err)
	}
	tail, err := ReadTail(dir, mark)
	if err != nil || len(tail.Events) != 17 || tail.Events[0].Session != "3" || tail.Ring != (Ring{"ring", 160}) {
		t.Errorf("%d events and %+v, %v", len(tail.Events), tail.Ring, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Mark(); err == nil {
		t.Error("a closed log was marked")
	}
	// What is torn is no part of it; where the mark's file is gone, all is behind it.
	f, err := os.OpenFile(currentPath(dir), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"schema":1,"id":"x","kind":"action","ring":{"id":"ring","en`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	tail, err = ReadTail(dir, Mark{File: 1})
	if err != nil || len(tail.Events) != 21 || tail.Ring.End != 160 {
		t.Errorf("of the whole log: %d events and %+v, %v", len(tail.Events), tail.Ring, err)
	}
	if tail, err := ReadTail(t.TempDir()+"/none", mark); err != nil || len(tail.Events) != 0 {
		t.Errorf("of no log: %+v, %v", tail, err)
	}
}
