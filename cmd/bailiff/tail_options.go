// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"bailiff.dev/bailiff/internal/audit"
)

// defaultLines is how many events tail shows when nothing says how many.
const defaultLines = 20

// options turns the flags into what to read.
func (t *tail) options() (audit.ReadOptions, error) {
	o := audit.ReadOptions{Follow: t.follow, Last: defaultLines,
		Filter: audit.Filter{Agent: t.agent, Session: t.session, Verdicts: t.verdicts}}
	if err := known("verdict", t.verdicts, "allow", "deny", "audit"); err != nil {
		return o, err
	}
	if err := known("kind", t.kinds, string(audit.Action), string(audit.Session), string(audit.Policy), string(audit.Grant), string(audit.System)); err != nil {
		return o, err
	}
	for _, k := range t.kinds {
		o.Filter.Kinds = append(o.Filter.Kinds, audit.Kind(k))
	}
	if t.since != "" {
		since, err := parseSince(t.since, t.env.now())
		if err != nil {
			return o, err
		}
		o.Filter.Since, o.Last = since, audit.All
	}
	switch t.last {
	case "":
	case "all":
		o.Last = audit.All
	default:
		n, err := strconv.Atoi(t.last)
		if err != nil || n < 0 {
			return o, usageError("-n %q is neither a number of events nor all", t.last)
		}
		o.Last = n
	}
	return o, nil
}

func known(flag string, given []string, words ...string) error {
	for _, g := range given {
		if !slices.Contains(words, g) {
			return usageError("--%s %q is none of %s%s", flag, g, strings.Join(words, ", "), meant(g, words))
		}
	}
	return nil
}

// parseSince reads a time, or how long before now.
func parseSince(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, usageError("--since %s", fmt.Sprintf("%q is neither a time such as %s nor a duration such as 10m, 1h30m or 2d",
		s, now.UTC().Format(time.RFC3339)))
}
