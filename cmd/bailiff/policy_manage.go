// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
	"bailiff.dev/bailiff/policy"
)

func policyListCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the policies in force", Args: wants(0, 0, "")}
	format := output(c, "table", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		answer, err := env.admin().ListPolicies(c.Context(), connect.NewRequest(&controlv1.ListPoliciesRequest{}))
		if err != nil {
			return err
		}
		if format.value == "json" {
			return printMessage(env.stdout, answer.Msg)
		}
		if !slices.ContainsFunc(answer.Msg.Policies, func(p *controlv1.PolicyInfo) bool { return p.Name != policy.Builtin }) {
			fmt.Fprintln(env.stderr, "no policies are in force but what is built in; `bailiff policy apply FILE` applies some")
		}
		return env.printPolicies(answer.Msg.Policies)
	}
	return c
}

func (env *environment) printPolicies(policies []*controlv1.PolicyInfo) error {
	var rows [][]string
	for _, p := range policies {
		status := "enforced"
		switch {
		case p.Degraded && p.Accepted:
			status = "degraded"
		case p.Degraded:
			status = "not accepted" // no session starts: --accept-degraded is missing
		}
		rows = append(rows, []string{p.Name, p.Kind, p.Mode, strconv.FormatUint(uint64(p.Rules), 10), status,
			strconv.FormatUint(p.Generation, 10), env.when(p.Applied), strings.Join(p.Subjects, ",")})
	}
	return table(env.stdout, []string{"NAME", "KIND", "MODE", "RULES", "STATUS", "GENERATION", "APPLIED", "SUBJECTS"}, rows)
}

func policyShowCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "show NAME", Short: "Print a policy as it was applied", Args: wants(1, 1, "the name of a policy")}
	format := output(c, "yaml", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		answer, err := env.admin().GetPolicy(c.Context(), connect.NewRequest(&controlv1.GetPolicyRequest{Name: args[0]}))
		if err != nil {
			return err
		}
		if format.value == "json" {
			return printMessage(env.stdout, answer.Msg)
		}
		if _, err := env.stdout.Write(env.document(answer.Msg.Document)); err != nil {
			return err
		}
		if info := answer.Msg.Info; info != nil {
			printProblems(env.stderr, info.Problems)
		}
		return nil
	}
	return c
}

// document is the text byte for byte, except on a terminal.
func (env *environment) document(text []byte) []byte {
	if !env.isTerminal(env.stdout) {
		return text
	}
	lines := strings.Split(string(text), "\n")
	for i, l := range lines {
		lines[i] = audit.Printable(strings.ReplaceAll(l, "\t", "        "))
	}
	return []byte(strings.Join(lines, "\n"))
}

func policyDeleteCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "delete NAME", Short: "Take a policy out of force", Args: wants(1, 1, "the name of a policy")}
	c.RunE = func(c *cobra.Command, args []string) error {
		answer, err := env.admin().DeletePolicy(c.Context(), connect.NewRequest(&controlv1.DeletePolicyRequest{Name: args[0]}))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.stdout, "deleted %s, generation %d\n", audit.Escape(args[0]), answer.Msg.Generation)
		return err
	}
	return c
}
