// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Printer writes events for people: one aligned line each, repeats folded,
// nothing in it that a terminal would obey. It is for one goroutine.
type Printer struct {
	out    io.Writer
	color  bool
	zone   *time.Location
	clock  func() time.Time
	fold   fold
	widths [columns]int
}

// NewPrinter prints to out, times in zone. The clock decides when repeats are told.
func NewPrinter(out io.Writer, color bool, zone *time.Location, clock func() time.Time) *Printer {
	return &Printer{out: out, color: color, zone: zone, clock: clock,
		widths: [columns]int{colTime: 23, colVerdict: 7, colAgent: 8, colOperation: 12, colObject: 24, colWhy: 16}}
}

const (
	colTime = iota
	colVerdict
	colAgent
	colOperation
	colObject
	colWhy
	columns
)

// widest is how far a column grows with what was printed before.
func widest(column int) int { return [columns]int{23, 7, 24, 24, 48, 40}[column] }

// Print writes the event, or counts it as a repeat of the one before.
func (p *Printer) Print(ev *Event) error {
	now := p.clock()
	before := p.fold
	if p.fold.repeated(ev, now) {
		return p.Quiet()
	}
	if err := p.tell(before.repeats); err != nil {
		return err
	}
	_, err := io.WriteString(p.out, p.line(ev))
	return err
}

// Quiet tells the number of repeats if they have paused or gone on for long;
// call it now and then while nothing comes.
func (p *Printer) Quiet() error {
	if now := p.clock(); p.fold.due(now) {
		return p.tell(p.fold.take(now))
	}
	return nil
}

// Flush tells the repeats not told yet; call it at the end.
func (p *Printer) Flush() error { return p.tell(p.fold.take(p.clock())) }

func (p *Printer) tell(repeats uint64) error {
	if repeats == 0 {
		return nil
	}
	times := "times"
	if repeats == 1 {
		times = "time"
	}
	_, err := fmt.Fprintf(p.out, "%*s … repeated %d %s\n", p.widths[colTime], "", repeats, times)
	return err
}

func (p *Printer) line(ev *Event) string {
	var b strings.Builder
	p.cell(&b, colTime, ev.Time.In(p.zone).Format("2006-01-02 15:04:05.000"), "")
	word, color := verdictWord(ev)
	p.cell(&b, colVerdict, word, color)
	p.cell(&b, colAgent, agentText(ev), "")
	if ev.Kind != Action {
		b.WriteString(noteText(ev))
		return strings.TrimRight(b.String(), " ") + "\n"
	}
	p.cell(&b, colOperation, operationText(ev), "")
	p.cell(&b, colObject, objectText(ev), "")
	p.cell(&b, colWhy, whyText(ev), "")
	b.WriteString(processText(ev))
	return strings.TrimRight(b.String(), " ") + "\n"
}

// cell writes a padded column; a column widens as it must, up to a bound.
func (p *Printer) cell(b *strings.Builder, column int, text, color string) {
	width := utf8.RuneCountInString(text)
	if width > p.widths[column] {
		p.widths[column] = min(width, widest(column))
	}
	if color != "" && p.color {
		b.WriteString(color + text + "\x1b[0m")
	} else {
		b.WriteString(text)
	}
	b.WriteString(strings.Repeat(" ", max(0, p.widths[column]-width)+2))
}

func verdictWord(ev *Event) (word, color string) {
	if ev.Kind != Action {
		return Escape(string(ev.Kind)), "\x1b[36m"
	}
	switch ev.Verdict {
	case "deny":
		return "DENY", "\x1b[1;31m"
	case "audit":
		return "AUDIT", "\x1b[33m"
	case "allow":
		return "allow", "\x1b[32m"
	}
	return Escape(ev.Verdict), ""
}

func agentText(ev *Event) string {
	if ev.Agent == "" {
		return "-"
	}
	return Escape(ShortAgent(ev.Agent))
}

// objectText is what was acted upon, with a rename's second name and the times
// that the kernel counted.
func objectText(ev *Event) string {
	text := ev.Object.text()
	if ev.Target != nil {
		text += " -> " + ev.Target.text()
	}
	return text
}

func (o *Object) text() string {
	switch {
	case o == nil:
		return "-"
	case o.Path != "" && o.Cut:
		return "…" + Escape(o.Path)
	case o.Path != "":
		return Escape(o.Path)
	case o.Address != "":
		text := o.Address
		if o.Port != 0 {
			text = net.JoinHostPort(o.Address, strconv.Itoa(int(o.Port)))
		}
		return strings.TrimSpace(Escape(text + " " + o.Protocol))
	case o.Type == "process" || o.PID != 0:
		return fmt.Sprintf("process %d", o.PID)
	}
	return strings.Join(strings.Fields(Escape(o.Type+" "+o.Family+" "+o.Protocol)), " ")
}

// whyText is the rule that decided, or the grant, or the reason where none did.
func whyText(ev *Event) string {
	why := Escape(ev.Rule)
	switch {
	case why == "" && ev.Grant != "":
		why = "grant " + Escape(ev.Grant)
		if ev.Verdict != "allow" {
			why += ": " + Escape(ev.Reason)
		}
	case why == "" && ev.Reason == "default":
		why = "no rule allows it"
	case why == "":
		why = Escape(ev.Reason)
	}
	if ev.Count > 1 {
		why += fmt.Sprintf(" (%d times)", ev.Count)
	}
	return why
}

func processText(ev *Event) string {
	switch {
	case ev.Executable != "" && ev.PID != 0:
		return fmt.Sprintf("%s[%d]", Escape(ev.Executable), ev.PID)
	case ev.PID != 0:
		return fmt.Sprintf("[%d]", ev.PID)
	}
	return Escape(ev.Executable)
}

// noteText is the line of an event that is no action.
func noteText(ev *Event) string {
	parts := []string{Printable(ev.Message)}
	if ev.Grant != "" {
		parts = append(parts, "grant="+Escape(ev.Grant))
	}
	if ev.Session != "" {
		parts = append(parts, "session="+Escape(ev.Session))
	}
	if ev.Task != "" {
		parts = append(parts, "task="+Escape(ev.Task))
	}
	for _, k := range slices.Sorted(maps.Keys(ev.Fields)) {
		parts = append(parts, Escape(k)+"="+Escape(ev.Fields[k]))
	}
	return strings.Join(parts, " ")
}

// operationText is what was tried, and the rights that asked for where the
// operation's name does not say them.
func operationText(ev *Event) string {
	access := Escape(strings.Join(ev.Access, ","))
	operation := Escape(ev.Operation)
	if access == "" || ev.Operation == "exec" || strings.HasSuffix(operation, access) {
		return operation
	}
	return operation + " " + access
}
