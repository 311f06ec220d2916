// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCapabilityNumbers compares the table with the kernel's header, as far as
// x/sys has it.
func TestCapabilityNumbers(t *testing.T) {
	for name, number := range map[string]int{
		"CHOWN": unix.CAP_CHOWN, "SETPCAP": unix.CAP_SETPCAP, "NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
		"IPC_OWNER": unix.CAP_IPC_OWNER, "SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_NICE": unix.CAP_SYS_NICE,
		"MKNOD": unix.CAP_MKNOD, "LEASE": unix.CAP_LEASE, "SETFCAP": unix.CAP_SETFCAP, "SYSLOG": unix.CAP_SYSLOG,
		"BPF": unix.CAP_BPF, "CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got := slices.IndexFunc(capabilities(), func(c capability) bool { return c.name == name }); got != number {
			t.Errorf("%s is number %d, want %d", name, got, number)
		}
	}
	if n := len(capabilities()); n != unix.CAP_LAST_CAP+1 {
		t.Errorf("the table has %d capabilities, Linux has %d: say of the new ones whether a policy may name them", n, unix.CAP_LAST_CAP+1)
	}
	for _, c := range capabilities() {
		if c.what == "" || strings.HasSuffix(c.what, ".") {
			t.Errorf("%s says %q", c.name, c.what)
		}
	}
}

func TestOpenCapabilities(t *testing.T) {
	want := []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
		"NET_BIND_SERVICE", "IPC_LOCK", "IPC_OWNER", "SYS_NICE", "LEASE",
	}
	if got := CapabilityNames(); !slices.Equal(got, want) {
		t.Errorf("a policy may name %v", got)
	}
	for _, c := range capabilities() {
		for _, word := range []string{c.name, strings.ToLower(c.name), "CAP_" + c.name, "cap_" + c.name} {
			got, problem, fix := ParseCapability(word)
			if (got != 0) != c.open || c.open != (problem+fix == "") || c.open && got.String() != c.name {
				t.Errorf("%s: %s, %q, %q", word, got, problem, fix)
			}
		}
	}
}

func TestCapabilitiesAddUp(t *testing.T) {
	one := policyText("one", "", "  capabilities: [chown, CAP_KILL]\n")
	two := policyText("two", "", "  capabilities: [KILL, SETUID]\n")
	r := mustCompile(t, one+"---\n"+two)
	if got := r.Capabilities.String(); got != "CHOWN, KILL, SETUID" {
		t.Errorf("got %s", got)
	}
	plain := mustCompile(t, policyText("one", "", "")+"---\n"+policyText("two", "", ""))
	if plain.Capabilities != 0 || plain.Capabilities.String() != "none" {
		t.Errorf("without a word about them: %s", plain.Capabilities)
	}
	if plain.Digest == r.Digest {
		t.Error("capabilities are not part of the digest")
	}
}

// TestPresetCapabilities: a preset may have them.
func TestPresetCapabilities(t *testing.T) {
	d := &decoder{file: "preset", preset: true}
	docs := d.documents([]byte("apiVersion: bailiff.dev/v1alpha1\nkind: Preset\nmetadata: {name: x}\nspec:\n  capabilities: [FOWNER]\n"))
	if len(docs) != 1 || len(d.problems) > 0 || docs[0].Policy.Capabilities.String() != "FOWNER" {
		t.Errorf("%d documents, %v", len(docs), d.problems)
	}
}
