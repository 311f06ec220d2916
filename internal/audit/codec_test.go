// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// sample is an action with every field set.
func sample() Event {
	uid := 0
	return Event{
		Schema: Schema, ID: "e-1", Kind: Action, Time: time.Date(2026, 3, 1, 12, 0, 0, 5000, time.UTC), BootNS: 42,
		Agent: "spiffe://local/agent/code-reviewer", Session: "s-1", Task: "CHG-1", Grant: "g-\x1b1",
		Verdict: "deny", Reason: "rule", Policy: "code-reviewer", Rule: "code-reviewer/files/2", Generation: 3,
		Operation: "rename", Access: []string{"create", "delete"},
		Object: &Object{Type: "file", Path: "/work/a", Cut: true}, Target: &Object{Type: "file", Path: "/work/.git/hooks/a"},
		Count: 2, PID: 77, TID: 78, UID: &uid, Executable: "/usr/bin/mv",
		Ancestors: []Process{{PID: 70, Name: "bash"}, {PID: 1, Name: "init"}},
		Message:   "m", Fields: map[string]string{"k": "v"},
	}
}

func TestRoundTripAnyBytes(t *testing.T) {
	for _, s := range []string{
		"", "plain", `back\slash`, `\`, `\\`, `\x41`, `\xzz`, "\xff", "a\xc3", "\xed\xa0\x80", "é\u2028\u202e<&>",
		"new\nline\x00\x1b[31m", "\ufffd", "\"quoted\"", `\` + "\xff" + `\x`,
	} {
		ev := sample()
		ev.Object.Path, ev.Target.Path, ev.Executable, ev.Ancestors[1].Name = s, s, s, s
		ev.Fields = map[string]string{s: s}
		before := ev.clone()
		line, err := Encode(&ev)
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(line) || !json.Valid(line) || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("%q: not one line of JSON: %q", s, line)
		}
		if !reflect.DeepEqual(ev, before) {
			t.Errorf("%q: encoding changed the event", s)
		}
		got, err := Decode(line)
		if err != nil || !reflect.DeepEqual(got, ev) {
			t.Errorf("%q: came back as %+v, %v", s, got, err)
		}
	}
}

// Where nothing is escaped the line is plain encoding/json, so that any other
// reader sees the names of the struct tags and nothing else.
func TestPlainEventIsPlainJSON(t *testing.T) {
	ev := sample()
	line, err := Encode(&ev)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(ev)
	if string(bytes.TrimSuffix(line, []byte("\n"))) != string(want) {
		t.Errorf("got  %s\nwant %s", line, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                            "not an event",
		"{":                           "not an event",
		"{}":                          "no schema",
		`{"schema":99}`:               "schema 99",
		"\x00\x00":                    "not an event",
		`{"schema":1,"time":"x"}`:     "not an event",
		`{"schema":1} {"schema":1}`:   "not an event",
		`{"schema":1,"object":"file"`: "not an event",
	} {
		if _, err := Decode([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}

func TestEncodeRefusesImpossibleTime(t *testing.T) {
	ev := sample()
	ev.Time = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	if line, err := Encode(&ev); err == nil {
		t.Errorf("encoded as %s", line)
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"/plain/é":        "/plain/é",
		"a\nb\tc\x1b[0m":  `a\nb\tc\x1b[0m`,
		"\xff\x7f\u009b":  `\xff\x7f\u009b`,
		"\u202eevil":      `\u202eevil`,
		`back\slash`:      `back\\slash`,
		"real \ufffd one": "real \ufffd one",
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %s, want %s", in, got, want)
		}
		if once := Printable(in); Printable(once) != once {
			t.Errorf("Printable(%q) is not stable: %s", in, once)
		}
	}
	if got := Printable("a\\n\n"); got != `a\n\n` {
		t.Errorf("Printable: %s", got)
	}
}

func FuzzDecode(f *testing.F) {
	ev := sample()
	line, _ := Encode(&ev)
	f.Add(line)
	f.Add([]byte(`{"schema":1,"kind":"system","time":"2026-03-01T12:00:00Z","fields":{"\\x41":"\\\\"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		first, err := Decode(line)
		if err != nil {
			return
		}
		again, err := Encode(&first)
		if err != nil {
			t.Fatalf("%+v: %v", first, err)
		}
		second, err := Decode(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if third, err := Encode(&second); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("%s\n%s\n%s: %v", line, again, third, err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	ev := sample()
	e := newEncoder()
	for b.Loop() {
		e.buf.Reset()
		if err := e.add(&ev); err != nil {
			b.Fatal(err)
		}
	}
}
