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
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if format.value == "json" {
			return printJSON(env.stdout, map[string]string{"version": version, "go": runtime.Version(), "platform": platform})
		}
		_, err := fmt.Fprintf(env.stdout, "bailiff %s (%s, %s)\n", version, runtime.Version(), platform)
		return err
	}
	return c
}
