// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func policyApplyCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Put policies in force: all of them or none",
		Long: `Apply hands policy files (or the files of a directory, or - for standard input)
to bailiffd. A document replaces the one of the same name; with --replace, those
that are not among the files are deleted. It is all or nothing.

What this host cannot enforce of a policy is named. Until that is accepted with
--accept-degraded, no session starts under such a policy.

Exit status: 0 applied, 1 bailiffd can't be reached or failed, 2 refused.`,
		Args: wants(1, -1, "at least one file"),
	}
	format := output(c, "table", "json")
	request := &controlv1.ApplyPoliciesRequest{}
	c.Flags().BoolVar(&request.AcceptDegraded, "accept-degraded", false, "let sessions start under policies that this host cannot fully enforce")
	c.Flags().BoolVar(&request.Replace, "replace", false, "delete every policy that is not among the files")
	c.RunE = func(c *cobra.Command, args []string) error {
		files, err := env.readPolicies(args)
		if err != nil {
			return err
		}
		for _, f := range files {
			request.Files = append(request.Files, &controlv1.PolicyFile{Name: f.name, Content: f.content})
		}
		answer, err := env.admin().ApplyPolicies(c.Context(), connect.NewRequest(request))
		if err != nil {
			return err
		}
		return env.printApplied(answer.Msg, format.value)
	}
	return c
}

func (env *environment) printApplied(m *controlv1.ApplyPoliciesResponse, format string) error {
	refused := m.Generation == 0
	if format == "json" {
		if err := printMessage(env.stdout, m); err != nil {
			return err
		}
	} else {
		printProblems(env.stderr, m.Problems)
		if !refused {
			fmt.Fprintf(env.stdout, "applied %s, generation %d\n", counted(len(m.Policies), "document"), m.Generation)
			if err := env.printPolicies(m.Policies); err != nil {
				return err
			}
			env.printUnaccepted(m.Policies)
		}
	}
	if !refused {
		return nil
	}
	return &exitError{exitUsage, fmt.Errorf("nothing was applied: %s; see the lines above", counted(len(m.Problems), "problem"))}
}

func printProblems(w io.Writer, problems []*controlv1.Problem) {
	for _, p := range problems {
		fmt.Fprintln(w, audit.Printable(fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, p.Severity, p.Message)))
	}
}

// printUnaccepted says which policies no session starts under.
func (env *environment) printUnaccepted(policies []*controlv1.PolicyInfo) {
	for _, p := range policies {
		if p.Degraded && !p.Accepted {
			fmt.Fprintf(env.stderr, "no session will start under %s: this host cannot enforce all of it, see above; "+
				"`bailiff doctor` says what would help, --accept-degraded accepts it\n", audit.Printable(p.Name))
		}
	}
}
