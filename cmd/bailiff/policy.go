// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

func policyCommand(env *environment) *cobra.Command {
	c := group(&cobra.Command{Use: "policy", Short: "Check, apply and look at policies"})
	c.AddCommand(
		policyCheckCommand(env),
		policyApplyCommand(env),
		policyListCommand(env),
		policyShowCommand(env),
		policyDeleteCommand(env),
		policyPresetsCommand(env),
		policySchemaCommand(env),
	)
	return c
}
