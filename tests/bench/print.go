// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// result is one line of the table.
type result struct {
	Row, Subject string
	Figure       string
	Beside       string `json:",omitempty"`
	estimate
	Unit   string `json:",omitempty"`
	Reach  string `json:",omitempty"`
	Met    bool   // the median is as Reach says
	Rounds int
	Place  place
	Where  string
}

// summarize computes each figure over the rounds.
func summarize(parts []*part, p place) (list []result) {
	for _, part := range parts {
		for _, f := range part.figures {
			values := make([]float64, len(part.rounds))
			for i, t := range part.rounds {
				values[i] = f.of(t)
			}
			e := medianOf(values)
			list = append(list, result{
				Row: part.name, Subject: part.what, Figure: f.what, Beside: f.beside, estimate: e, Unit: f.unit,
				Reach: f.reach.String(), Met: f.reach.met(e.Median), Rounds: len(values), Place: p, Where: p.String(),
			})
		}
	}
	return list
}

func writeJSON(w io.Writer, list []result) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, r := range list {
		if err := e.Encode(r); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

// readResults reads what writeJSON wrote, and puts the rows in order.
func readResults(files []string) (list []result, err error) {
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		for d := json.NewDecoder(file); d.More(); {
			var r result
			if err := d.Decode(&r); err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
			list = append(list, r)
		}
	}
	order := rowNames()
	slices.SortStableFunc(list, func(a, b result) int { return slices.Index(order, a.Row) - slices.Index(order, b.Row) })
	return list, nil
}

func writeTable(w io.Writer, list []result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ROW\tWHAT\tBESIDE\tMEDIAN\t95 %\tREACH\t\tROUNDS\tWHERE")
	for _, r := range list {
		met := ""
		switch {
		case r.Reach != "" && r.Met:
			met = "yes"
		case r.Reach != "":
			met = "NO"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s - %s\t%s\t%s\t%d\t%s\n", r.Row, r.Figure, r.Beside,
			number(r.Median, r.Unit), number(r.Low, ""), number(r.High, ""), r.Reach, met, r.Rounds, r.Where)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// number prints ratios with three decimals and times without.
func number(v float64, unit string) string {
	text := fmt.Sprintf("%.3f", v)
	if math.Abs(v) >= 100 {
		text = fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSpace(text + " " + unit)
}
