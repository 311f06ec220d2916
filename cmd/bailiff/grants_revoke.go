// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func grantsRevokeCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use: "revoke ID... | --session SESSION", Short: "End grants now", Args: wants(0, -1, ""), ValidArgsFunction: env.completeGrants,
	}
	session := c.Flags().String("session", "", "all grants of this session")
	c.RunE = func(c *cobra.Command, args []string) error {
		if (len(args) == 0) == (*session == "") {
			return usageError("`bailiff grants revoke` needs the ids of grants (`bailiff grants list`), or --session; usage: %s", c.UseLine())
		}
		answer, err := env.admin().RevokeGrants(c.Context(), connect.NewRequest(&controlv1.RevokeGrantsRequest{Ids: args, Session: *session}))
		if err != nil {
			return badInput(err)
		}
		for _, g := range answer.Msg.Grants {
			if _, err := fmt.Fprintf(env.stdout, "revoked %s of %s\n", audit.Escape(g.Id), audit.Escape(g.Session)); err != nil {
				return err
			}
		}
		if len(answer.Msg.Grants) == 0 {
			_, err = fmt.Fprintln(env.stderr, "there was nothing to revoke")
		}
		return err
	}
	return c
}
