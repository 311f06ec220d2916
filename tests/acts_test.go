// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"fmt"
	"strings"
)

// act is something a session must not do, beside the legitimate thing that is
// most like it. Both are shell commands; success is status 0.
type act struct {
	name      string
	attack    string
	neighbour string // "": there is none
	event     string // how its denial begins in the log
}

// loosePolicy opens all that a policy can open.
const loosePolicy = `
apiVersion: bailiff.dev/v1alpha1
kind: AgentPolicy
metadata: {name: loose}
spec:
  subject: {spiffeID: attacker}
  files:
    - {path: /, allow: [read, write, create, delete, execute]}
  network:
    - {allow: connect, cidr: 0.0.0.0/0, protocol: any}
    - {allow: connect, unix: /}
    - {allow: connect, unix: "@*"}
    - {allow: listen}
`

// outcome is how acts and their neighbours ended, by "attack NAME" and
// "neighbour NAME"; "0" is success.
type outcome map[string]string

// tryAll is a script that tries all acts and prints how each ended.
func tryAll(list []act, text *strings.Replacer, neighbours bool) string {
	var b strings.Builder
	b.WriteString(`try() { out=$(eval "$2" 2>&1 </dev/null); echo "$1=$?"; printf '%(%T)T %s: %s\n' -1 "$1" "$out" >&2; }` + "\n")
	for _, a := range list {
		if a.neighbour != "" && neighbours {
			fmt.Fprintf(&b, "try 'neighbour %s' %s\n", a.name, quote(text.Replace(a.neighbour)))
		}
		fmt.Fprintf(&b, "try 'attack %s' %s\n", a.name, quote(text.Replace(a.attack)))
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func outcomes(stdout string) outcome {
	o := outcome{}
	for line := range strings.Lines(stdout) {
		if name, code, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			o[name] = code
		}
	}
	return o
}

func hasPrefix(list []string, prefix string) bool {
	for _, s := range list {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}
