// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bailiff.dev/bailiff/policy"
)

// Rights that the built-in guardrail takes.
const (
	everything = policy.Read | policy.Write | policy.Create | policy.Delete | policy.Execute
	change     = policy.Write | policy.Create | policy.Delete
)

// guarded is a place that no session may touch, or change, or (for
// policy.Connect) connect to. The path is a pattern.
type guarded struct {
	path   string
	access policy.Access
}

// guardedSection is the places that are guarded for the same reason.
type guardedSection struct {
	about string
	lines []guarded
}

const builtinHead = `# What no policy and no grant can open, in audit mode neither: what Bailiff itself lives on,
# and the kernel's knobs. bailiffd makes it from its configuration and from what is mounted,
# and adds it to every set of policies; it holds for every agent.
apiVersion: ` + policy.APIVersion + `
kind: Guardrail
metadata: {name: ` + policy.Builtin + `}
spec:
  subjects: ["` + policy.Everyone + `"]
`

// builtin returns the document that the daemon adds to every set.
func (d *Daemon) builtin() (storedDocument, error) {
	mounts, err := readMounts()
	if err != nil {
		return storedDocument{}, err
	}
	sections := append(d.ownSections(), mountSections(mounts)...)
	return builtinDocument(builtinText(sections, d.guardedSockets())), nil
}

func builtinDocument(text string) storedDocument {
	return storedDocument{Name: policy.Builtin, File: "<builtin>", Text: text}
}

// addBuiltin puts a built-in guardrail into a candidate, and the canary's policies.
func (c *candidate) addBuiltin(builtin storedDocument) error {
	if builtin.parsed == nil {
		docs, problems := policy.ParseBuiltin(builtin.File, []byte(builtin.Text))
		own, more := policy.ParseBuiltin("<canary>", []byte(canaryDocuments()))
		if err := append(problems, more...).Err(); err != nil {
			return fmt.Errorf("make the built-in guardrail: %w", err)
		}
		builtin.parsed = &parsed{docs: append(docs, own...)}
	}
	c.builtin, c.docs = builtin, slices.Clone(builtin.parsed.docs)
	return nil
}

// guardMounts puts the built-in guardrail in force again where a mount changed
// what it is about.
func (d *Daemon) guardMounts() error {
	d.policies.apply.Lock()
	defer d.policies.apply.Unlock()
	builtin, err := d.builtin()
	if err != nil || builtin.Text == d.policies.builtin.Text {
		return err
	}
	c, ok := d.compile(d.policies.stored)
	if !ok {
		return c.problems.Err()
	}
	return d.applyChange(context.Background(), c, "the built-in guardrail follows the mounts", []string{policy.Builtin})
}

// ownSections are what Bailiff itself is made of, and what the next boot starts.
func (d *Daemon) ownSections() []guardedSection {
	c := &d.o.Config
	list := func(access policy.Access, paths ...string) (lines []guarded) {
		for _, p := range realPaths(paths...) {
			lines = append(lines, guarded{policy.EscapePath(p), access})
		}
		return lines
	}
	programs := []string{"/etc/bailiff"}
	// Not /dev/null, which stands for none, and which every program writes to.
	if st, err := os.Stat(d.o.ConfigFile); err != nil && d.o.ConfigFile != "" || err == nil && st.Mode().IsRegular() {
		programs = append(programs, d.o.ConfigFile)
	}
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		programs = append(programs, self, filepath.Join(dir, "bailiff"), filepath.Join(dir, "../bin/bailiff"))
	}
	return []guardedSection{
		{"Policies, sessions, and the event log.", list(everything, c.StateDir)},
		{"The pinned programs and rules.", list(everything, c.PinDir)},
		{"The sockets, bailiffd's configuration, and the programs.", list(change, append([]string{c.RunDir}, programs...)...)},
		{"What systemd starts, bailiffd among it, and what every program loads.", list(change,
			"/etc/systemd", "/usr/lib/systemd", "/lib/systemd", "/usr/local/lib/systemd", "/run/systemd/system",
			"/run/systemd/transient", "/run/systemd/generator", "/etc/ld.so.preload")},
		{"What the kernel starts with, and its knobs from then on.", list(change,
			"/boot", "/usr/lib/modules", "/lib/modules", "/etc/modprobe.d", "/etc/modules-load.d", "/etc/sysctl.d", "/etc/sysctl.conf")},
		{"Memory itself.", list(everything, "/dev/mem", "/dev/kmem", "/dev/port")},
	}
}

// guardedSockets are whose listeners do with their own rights what they are asked to.
func (d *Daemon) guardedSockets() []string {
	var sockets []string
	for _, p := range []string{d.socket("admin.sock"), "/run/systemd/private", "/run/dbus/system_bus_socket"} {
		sockets = append(sockets, policy.EscapePath(realPath(p)))
	}
	return sockets
}

// mountSections are the file systems that the kernel is steered by, wherever
// they are mounted whole. Where a mount shows a part of one, the programs follow
// the file system's own route.
func mountSections(mounts []mount) []guardedSection {
	sections := []guardedSection{
		{about: "Control groups, and the rest of sysfs: sessions may look."},
		{about: "Programs, traces and policies of the kernel: sessions may not even look."},
		{about: "Knobs in procfs, and what makes the kernel favour one process over another."},
	}
	for _, m := range mounts {
		if m.root != "/" {
			continue
		}
		point := policy.EscapePath(m.point)
		switch m.kind {
		case "sysfs", "cgroup", "cgroup2":
			sections[0].lines = append(sections[0].lines, guarded{point, change})
		case "bpf", "tracefs", "debugfs", "securityfs":
			sections[1].lines = append(sections[1].lines, guarded{point, everything})
		case "proc":
			sections[2].lines = append(sections[2].lines, guardedProc(strings.TrimSuffix(point, "/"))...)
		}
	}
	return sections
}

// guardedProc are the places in a procfs. What is written to a process without
// the right to trace it is closed for all of them: a guardrail has no exceptions,
// and a session that shields itself from the OOM killer offers it the daemon.
func guardedProc(point string) (lines []guarded) {
	lines = append(lines, guarded{point + "/kcore", everything})
	for _, name := range []string{
		"sys", "sysrq-trigger", "irq", "mtrr", "acpi", "bus", "scsi",
		"*/oom_score_adj", "*/oom_adj", "*/task/*/oom_score_adj", "*/task/*/oom_adj", "*/autogroup",
	} {
		lines = append(lines, guarded{point + "/" + name, change})
	}
	return lines
}

// builtinText writes the document. A place that an earlier one covers is left out.
func builtinText(sections []guardedSection, sockets []string) string {
	var b strings.Builder
	b.WriteString(builtinHead + "  files:\n")
	var written []guarded
	for _, s := range sections {
		about := "    # " + s.about + "\n"
		for _, line := range s.lines {
			if line.covered(written) {
				continue
			}
			written = append(written, line)
			fmt.Fprintf(&b, "%s    - %s\n", about, policy.FileLine{Path: line.path, Deny: line.access})
			about = ""
		}
	}
	b.WriteString("  network:\n    # Who would act on what a session asks.\n")
	for _, path := range sockets {
		fmt.Fprintf(&b, "    - %s\n", policy.NetworkLine{Deny: policy.ActionConnect, Unix: path})
	}
	return b.String()
}

func (g guarded) covered(by []guarded) bool {
	for _, other := range by {
		below := g.path == other.path || strings.HasPrefix(g.path, strings.TrimSuffix(other.path, "/")+"/")
		if below && g.access&^other.access == 0 {
			return true
		}
	}
	return false
}

// realPath resolves the links of a path, as far as it exists: paths are judged
// without any.
func realPath(path string) string {
	path = filepath.Clean("/" + path)
	if real, err := filepath.EvalSymlinks(path); err == nil || path == "/" {
		return real
	}
	return filepath.Join(realPath(filepath.Dir(path)), filepath.Base(path))
}

// realPaths returns where paths really are, and before each the links that lead
// there: who replaced one of those would put something else in its place.
func realPaths(paths ...string) (list []string) {
	for _, path := range paths {
		path = filepath.Clean("/" + path)
		for at, rest := "", path; rest != ""; {
			name, more, _ := strings.Cut(rest[1:], "/")
			at = filepath.Join(realPath(at), name)
			if isLink(at) {
				list = append(list, at)
			}
			if rest = more; rest != "" {
				rest = "/" + rest
			}
		}
		list = append(list, realPath(path))
	}
	return list
}
