// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func grantsCommand(env *environment) *cobra.Command {
	c := group(&cobra.Command{Use: "grants", Short: "Give a session access until a deadline, and take it back"})
	c.AddCommand(grantsIssueCommand(env), grantsListCommand(env), grantsRevokeCommand(env))
	return c
}

// badInput gives what the daemon calls bad input the exit status for it.
func badInput(err error) error {
	var answer *connect.Error
	if errors.As(err, &answer) && connect.IsWireError(err) && answer.Code() == connect.CodeInvalidArgument {
		return &exitError{exitUsage, err}
	}
	return err
}

// completeSessions completes the ids of sessions that run.
func (env *environment) completeSessions(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	answer, err := env.admin().ListSessions(c.Context(), connect.NewRequest(&controlv1.ListSessionsRequest{}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, s := range answer.Msg.Sessions {
		ids = append(ids, s.Id)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// completeGrants completes the ids of grants that have not ended.
func (env *environment) completeGrants(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	answer, err := env.admin().ListGrants(c.Context(), connect.NewRequest(&controlv1.ListGrantsRequest{}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, g := range answer.Msg.Grants {
		if !slices.Contains(args, g.Id) {
			ids = append(ids, g.Id)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
