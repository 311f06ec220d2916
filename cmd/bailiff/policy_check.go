// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/policy"
)

func policyCheckCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:   "check FILE...",
		Short: "Say what is wrong with policy files, without a daemon and without root",
		Long: `Check reads policy files (or the files of a directory, or - for standard input)
as if they were all to be applied together, and prints each problem as
FILE:LINE:COLUMN: SEVERITY: what is wrong; what would be right.

Exit status: 0 no errors, 2 errors. With --strict it is 2 for anything that this
build enforces less sharply than written, or not at all.`,
		Args: wants(1, -1, "at least one file"),
	}
	format := output(c, "pretty", "json")
	strict := c.Flags().Bool("strict", false, "count what is not fully enforced as an error")
	c.RunE = func(_ *cobra.Command, args []string) error {
		files, err := env.readPolicies(args)
		if err != nil {
			return err
		}
		docs, problems := checkPolicies(files)
		print := env.printCheck
		if format.value == "json" {
			print = env.printCheckJSON
		}
		if err := print(docs, problems); err != nil {
			return err
		}
		bad := problems.Has(policy.Error) ||
			*strict && (problems.Has(policy.Unsupported) || problems.Has(policy.Degraded))
		if bad {
			return &exitError{code: exitUsage}
		}
		return nil
	}
	return c
}

// checkPolicies parses the files and compiles them for every agent they name.
func checkPolicies(files []policyFile) ([]policy.Document, policy.Problems) {
	var docs []policy.Document
	var problems policy.Problems
	for _, f := range files {
		d, p := policy.Parse(f.name, f.content)
		docs, problems = append(docs, d...), append(problems, p...)
	}
	problems = append(problems, policy.Check(docs)...)
	if !problems.Has(policy.Error) {
		for _, subject := range policy.Subjects(docs) {
			_, p := policy.Compile(subject, docs)
			problems = append(problems, p...)
		}
	}
	problems.Sort()
	return docs, problems
}

func (env *environment) printCheck(docs []policy.Document, problems policy.Problems) error {
	n := map[policy.Severity]int{}
	for _, p := range problems {
		n[p.Severity]++
		if _, err := fmt.Fprintln(env.stdout, audit.Printable(p.String())); err != nil {
			return err
		}
	}
	parts := []string{counted(len(docs), "document"), counted(n[policy.Error], "error")}
	if k := n[policy.Unsupported]; k > 0 {
		parts = append(parts, fmt.Sprintf("%d not enforceable by this build, which apply refuses", k))
	}
	if k := n[policy.Degraded]; k > 0 {
		parts = append(parts, fmt.Sprintf("%d enforced less sharply than written", k))
	}
	if k := n[policy.Note]; k > 0 {
		parts = append(parts, counted(k, "note"))
	}
	_, err := fmt.Fprintln(env.stdout, strings.Join(parts, ", "))
	return err
}

type checkedDocument struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Subjects []string `json:"subjects"`
	File     string   `json:"file"`
	Line     int      `json:"line"`
}

type checkedProblem struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Message  string `json:"message"`
	Fix      string `json:"fix,omitempty"`
}

func (env *environment) printCheckJSON(docs []policy.Document, problems policy.Problems) error {
	result := struct {
		Documents []checkedDocument `json:"documents"`
		Problems  []checkedProblem  `json:"problems"`
	}{[]checkedDocument{}, []checkedProblem{}}
	for i := range docs {
		d := &docs[i]
		result.Documents = append(result.Documents, checkedDocument{d.Name, string(d.Kind), d.Subjects(), d.Pos.File, d.Pos.Line})
	}
	for _, p := range problems {
		result.Problems = append(result.Problems, checkedProblem{string(p.Severity), p.Pos.File, p.Pos.Line, p.Pos.Column, p.Message, p.Fix})
	}
	return printJSON(env.stdout, result)
}
