// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

func versionCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Print the version of this program", Args: wants(0, 0, "")}
	format := output(c, "pretty", "json")
	c.RunE = func(*cobra.Command, []string) error {
		if format.value == "json" {
			return printJSON(env.stdout, map[string]string{"version": version, "go": runtime.Version(), "platform": platform()})
		}
		_, err := fmt.Fprintln(env.stdout, versionText())
		return err
	}
	return c
}

func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

func versionText() string {
	return fmt.Sprintf("bailiff %s (%s, %s)", version, runtime.Version(), platform())
}
