// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/policy"
)

func policyPresetsCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "presets [NAME]",
		Short: "List the presets, or print exactly what one expands to",
		Args:  wants(0, 1, ""),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := io.WriteString(env.stdout, strings.Join(policy.PresetNames(), "\n")+"\n")
				return err
			}
			text, err := policy.Preset(args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			_, err = io.WriteString(env.stdout, text)
			return err
		},
	}
}
