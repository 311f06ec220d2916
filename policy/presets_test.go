// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"
)

// TestPresetsAllowNoChange holds the promise that a preset never lets an agent
// write what someone unconfined later executes: nothing is writable but devices.
func TestPresetsAllowNoChange(t *testing.T) {
	devices := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts"}
	names := PresetNames()
	if !slices.Equal(names, []string{"git", "go", "node", "python", "runtime", "shell"}) {
		t.Errorf("presets are %v", names)
	}
	for _, name := range names {
		preset, err := loadPreset(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(preset.Policy.Files) == 0 || preset.Name != name {
			t.Errorf("%s: %d lines, named %q", name, len(preset.Policy.Files), preset.Name)
		}
		for _, l := range preset.Policy.Files {
			if l.Allow&(Create|Delete) != 0 || l.Allow&Write != 0 && !slices.Contains(devices, l.Path) || l.Deny != 0 {
				t.Errorf("%s: %s", l.Pos, fileLineText(&l))
			}
		}
	}
}

func TestPresetsRuleset(t *testing.T) {
	docs, ps := Parse("p.yaml", []byte(head+"  presets: [runtime, shell, git, python, node, go]\n"))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	r, ps := Compile(testAgent, docs)
	if r == nil || len(ps) > 0 {
		t.Fatal(ps)
	}
	for path, want := range map[string]Access{
		"/usr/lib/x86_64-linux-gnu/libc.so.6":                       Read | Execute,
		"/usr/lib/ld-linux-aarch64.so.1":                            Read | Execute,
		"/lib64/ld-linux-x86-64.so.2":                               Read | Execute,
		"/usr/bin/[":                                                Read | Execute,
		"/usr/bin/dash":                                             Read | Execute,
		"/usr/bin/python3.13":                                       Read | Execute,
		"/usr/bin/sudo":                                             0,
		"/usr/bin/ssh":                                              0,
		"/usr/lib/git-core/git-remote-http":                         Read | Execute,
		"/usr/local/go/pkg/tool/linux_amd64/compile":                Read | Execute,
		"/home/me/go/pkg/mod/example.org/x@v1.0.0/x.go":             Read,
		"/root/go/pkg/mod/golang.org/toolchain@v0.0.1-go1.26/bin/x": Read | Execute,
		"/home/me/.config/git/credentials":                          0,
		"/home/me/.config/git/config":                               Read,
		"/home/me/.ssh/id_ed25519":                                  0,
		"/home/me/.bashrc":                                          0,
		"/etc/passwd":                                               Read,
		"/etc/shadow":                                               0,
		"/etc/ssl/private/key.pem":                                  0,
		"/dev/null":                                                 Read | Write,
		"/dev/sda":                                                  0,
		"/proc/self/status":                                         Read,
		"/proc/1/environ":                                           0,
		"/":                                                         0,
	} {
		if got := r.Rights(components(path)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if v, ok := r.Env.Set["GIT_TEMPLATE_DIR"]; !ok || v != "" {
		t.Errorf("GIT_TEMPLATE_DIR is %q, %v", v, ok)
	}
	view, ps := r.Landlock(docs)
	if len(ps) > 0 || len(view.Paths) < 200 {
		t.Errorf("%d paths, %v", len(view.Paths), ps)
	}
}

func TestUnknownPreset(t *testing.T) {
	if _, err := Preset("../limits"); err == nil || !strings.Contains(err.Error(), "known are git, go, node") {
		t.Errorf("got %v", err)
	}
}

func components(path string) []string {
	if path == "/" {
		return nil
	}
	return strings.Split(path[1:], "/")
}
