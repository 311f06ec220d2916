// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// localPrefix is what a bare agent name stands below.
const localPrefix = "spiffe://local/agent/"

// ParseSubject returns the SPIFFE ID or pattern that s means: an ID, an ID
// ending in "/*", or a bare NAME, short for spiffe://local/agent/NAME. The error
// says what would be right.
func ParseSubject(s string) (string, error) {
	if s == "" {
		return "", errors.New(`it is empty: write a SPIFFE ID such as "spiffe://example.org/agent/reviewer", or a bare name`)
	}
	if len(s) > MaxSPIFFEID {
		return "", fmt.Errorf("it has %d bytes: a SPIFFE ID has at most %d", len(s), MaxSPIFFEID)
	}
	rest, full := strings.CutPrefix(s, "spiffe://")
	if !full {
		return parseBareSubject(s)
	}
	domain, path, _ := strings.Cut(rest, "/")
	if !validWord(domain, false) {
		return "", errors.New(`its trust domain must be lower-case letters, digits, ".", "-" and "_", as in "spiffe://example.org/agent/reviewer"`)
	}
	if path == "" {
		return "", fmt.Errorf(`it names no workload: add a path, or write %q for all of the trust domain`, "spiffe://"+domain+"/*")
	}
	segments := strings.Split(path, "/")
	for i, seg := range segments {
		if seg == "*" && i == len(segments)-1 {
			continue
		}
		if err := checkSegment(seg); err != nil {
			return "", err
		}
	}
	return s, nil
}

func parseBareSubject(s string) (string, error) {
	if strings.Contains(s, "://") {
		return "", errors.New(`it is no SPIFFE ID: write it as "spiffe://DOMAIN/PATH"`)
	}
	if strings.Contains(s, "/") {
		return "", fmt.Errorf("a bare name has no %q: write %q in full", "/", localPrefix+s)
	}
	if s == "*" {
		return "", fmt.Errorf("say whose agents are meant: %q are all local ones", localPrefix+"*")
	}
	if err := checkSegment(s); err != nil {
		return "", err
	}
	return localPrefix + s, nil
}

func checkSegment(seg string) error {
	switch {
	case seg == "":
		return errors.New("it has an empty path segment: remove the extra slash")
	case seg == "." || seg == "..":
		return fmt.Errorf("it has the path segment %q, which SPIFFE forbids: remove it", seg)
	case strings.Contains(seg, "*"):
		return errors.New(`"*" is only known as the whole last segment, as in "spiffe://example.org/agent/*": name the agents one by one`)
	case !validWord(seg, true):
		return errors.New(`path segments are letters, digits, ".", "-" and "_": use only those`)
	}
	return nil
}

func validWord(s string, upper bool) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || isDigit(c) || c == '.' || c == '-' || c == '_' || upper && 'A' <= c && c <= 'Z') {
			return false
		}
	}
	return s != ""
}

// Match reports whether a subject (exact or ending in "/*") covers an agent. The
// agent may itself be a pattern: it is then covered only as a whole.
func Match(subject, agent string) bool {
	if subject == agent {
		return true
	}
	prefix, ok := strings.CutSuffix(subject, "*")
	return ok && strings.HasPrefix(agent, prefix) && len(agent) > len(prefix)
}

// Subjects returns the subjects that need a ruleset of their own, sorted: each
// subject of a policy, and each subject of a guardrail that is narrower than a
// policy's. A concrete agent is judged by the ruleset of the most specific
// subject that covers it (SubjectFor).
func Subjects(docs []Document) []string {
	var policies, all []string
	for i := range docs {
		subjects := docs[i].Subjects()
		all = append(all, subjects...)
		if docs[i].Kind == KindAgentPolicy {
			policies = append(policies, subjects...)
		}
	}
	policies, all = sortedOnce(policies), sortedOnce(all)
	covered := func(s string) bool {
		return slices.ContainsFunc(policies, func(p string) bool { return Match(p, s) })
	}
	return slices.DeleteFunc(all, func(s string) bool { return !covered(s) })
}

func sortedOnce(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// SubjectFor returns the most specific of the subjects that covers an agent; ok
// is false if none does.
func SubjectFor(agent string, subjects []string) (subject string, ok bool) {
	for _, s := range subjects {
		if s == agent {
			return s, true
		}
		if Match(s, agent) && len(s) > len(subject) {
			subject, ok = s, true
		}
	}
	return subject, ok
}
