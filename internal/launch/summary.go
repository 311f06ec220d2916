// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

const (
	summaryTimeout = 5 * time.Second
	summaryLines   = 10
)

// summarise prints what the session was denied, if anything.
func summarise(w io.Writer, socket, session string) {
	ctx, cancel := context.WithTimeout(context.Background(), summaryTimeout)
	defer cancel()
	conn, refused := dial(ctx, socket)
	if refused != nil {
		fmt.Fprintf(w, "bailiff: no summary of session %s: %v\n", printable(session), refused)
		return
	}
	defer conn.Close()
	answer, err := client(conn).SessionSummary(ctx, connect.NewRequest(&controlv1.SessionSummaryRequest{Id: session}))
	if err != nil {
		fmt.Fprintf(w, "bailiff: no summary of session %s: %s: see `bailiff tail --session %s`\n", printable(session), printable(err.Error()), printable(session))
		return
	}
	io.WriteString(w, summaryText(printable(session), answer.Msg))
}

func summaryText(session string, s *controlv1.SessionSummaryResponse) string {
	var b strings.Builder
	if denials := s.GetDenials(); len(denials) > 0 {
		fmt.Fprintf(&b, "bailiff: denied in session %s:\n", session)
		shown := denials[:min(len(denials), summaryLines)]
		width := 0
		for _, d := range shown {
			width = max(width, len(printable(d.GetOperation())))
		}
		for _, d := range shown {
			b.WriteString("  " + denialText(d, width) + "\n")
		}
		if more := len(denials) - summaryLines; more > 0 {
			fmt.Fprintf(&b, "  and %d more: bailiff tail --session %s\n", more, session)
		}
		b.WriteString(adviceText(denials))
	}
	if lost := s.GetDropped(); lost > 0 {
		fmt.Fprintf(&b, "bailiff: %d events were lost before they were counted: the list may be incomplete\n", lost)
	}
	return b.String()
}

func denialText(d *controlv1.Denial, width int) string {
	text := fmt.Sprintf("%-*s  %s", width, printable(d.GetOperation()), printable(d.GetObject()))
	if d.GetCount() > 1 {
		text += fmt.Sprintf(" (%d times)", d.GetCount())
	}
	if d.GetRule() != "" {
		text += " by rule " + printable(d.GetRule())
	}
	return text
}

// adviceText lists each policy line once, most needed first.
func adviceText(denials []*controlv1.Denial) string {
	var lines []string
	for _, d := range denials {
		if line := printable(d.GetAdvice()); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	text := "bailiff: policy lines that would allow it:\n"
	for _, line := range lines[:min(len(lines), summaryLines)] {
		text += "  " + line + "\n"
	}
	return text
}
