// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/launch"
)

// confineName is the hidden command that becomes a session's command.
const confineName = "__confine"

// init keeps main on the process's first thread, which only an init can: the
// kernel labels the first thread, and an exec from another one would lose the
// label. It is the one init of this program.
func init() { runtime.LockOSThread() }

func confineCommand(*environment) *cobra.Command {
	return &cobra.Command{
		Use:                confineName,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return &exitError{code: launch.Confine(args)}
		},
	}
}
