// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"slices"
	"strings"
	"testing"
)

// technique is one way out.
type technique struct {
	id    string // stable: the results are kept by it
	title string // what is attempted, in a few words
	hooks string // what stops it, for the table; several with commas
	basic bool   // the basic tier stops it too

	// attack returns nil when it got what a session must not have. It can't know
	// whether it is in a session. neighbour must succeed everywhere; nil: there
	// is no legitimate form of the attack.
	attack, neighbour func(f *field) error

	// stage, in place of attack, is for techniques that the test has a part in.
	stage func(t *testing.T, r *run) []*attempt
	long  bool // not for the quick run

	// seen tells how the denial is recorded: "OPERATION REASON-OR-RULE OBJECT",
	// where the object is any part of it; several forms with " | ". Empty: it
	// is not, and unrecorded says why.
	seen, unrecorded string

	loose   bool    // tried under the policy that allows everything, not under the narrow one
	launch  bool    // what the launcher takes away, calls and capabilities, stops it too; that is not recorded
	process bool    // needs a process of its own
	clone   int     // and one made with these flags; its making is part of the attack
	root    bool    // tried as root alone: for others the kernel itself refuses it
	user    bool    // tried as the ordinary user alone: root would hit the test too
	errors  []error // ways to fail that mean "denied" too

	impossible string // why it can't be tried in the guests, where it can't
	open       string // why it isn't stopped, where it isn't
}

// group is the techniques around one resource.
type group struct {
	name       string
	techniques []technique
}

// groups is the whole suite, in the order it runs in.
func groups() []group {
	return []group{
		{"Files: opening", openTechniques()},
		{"Files: changing", slices.Concat(contentTechniques(), treeTechniques(), watchTechniques())},
		{"Files: moving", slices.Concat(linkTechniques(), renameTechniques())},
		{"Programs and executable memory", slices.Concat(execTechniques(), mapTechniques(), foreignTechniques())},
		{"Connections", connectTechniques()},
		{"Datagrams", datagramTechniques()},
		{"Routes and socket options", routeTechniques()},
		{"Other sockets", slices.Concat(protocolTechniques(), familyTechniques())},
		{"Being connected to", listenTechniques()},
		{"Unix sockets", unixTechniques()},
		{"Descriptors from outside", descriptorTechniques()},
		{"io_uring", ringTechniques()},
		{"Other channels and rights", ipcTechniques()},
		{"Mounts", slices.Concat(mountTechniques(), rootTechniques())},
		{"Namespaces", namespaceTechniques()},
		{"Processes outside", taskTechniques()},
		{"Signals and scheduling", signalTechniques()},
		{"The kernel", slices.Concat(codeOfKernelTechniques(), machineTechniques(), keyTechniques())},
		{"Knobs of the kernel", knobTechniques()},
		{"Devices and terminals", slices.Concat(deviceTechniques(), terminalTechniques())},
		{"What enforces", slices.Concat(daemonTechniques(), starveTechniques(), cgroupTechniques())},
		{"From outside, and all at once", stagedTechniques()},
	}
}

// all returns the techniques by their ids.
func all() map[string]technique {
	byID := map[string]technique{}
	for _, g := range groups() {
		for _, t := range g.techniques {
			byID[t.id] = t
		}
	}
	return byID
}

// forms splits seen.
func (t *technique) forms() []string {
	if t.seen == "" {
		return nil
	}
	return strings.Split(t.seen, " | ")
}
