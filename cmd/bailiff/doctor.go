// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/control"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func doctorCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can enforce, and what would raise it",
		Long: `Doctor asks bailiffd what it found by trying. Where no daemon answers it says
so, and prints what can be seen of the host without one.

Exit status: 0 bailiffd answers, 1 it does not.`,
		Args: wants(0, 0, ""),
	}
	format := output(c, "pretty", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		answer, err := env.admin().Status(c.Context(), connect.NewRequest(&controlv1.StatusRequest{}))
		if err != nil {
			return env.doctorAlone(err, format.value)
		}
		if format.value == "json" {
			return printMessage(env.stdout, answer.Msg)
		}
		return env.printStatus(answer.Msg)
	}
	return c
}

// probe is something about the host, found without the daemon.
type probe struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Result string `json:"result"`
	Remedy string `json:"remedy,omitempty"`
}

// doctorAlone is for when no daemon answers.
func (env *environment) doctorAlone(cause error, format string) error {
	probes := env.localProbes()
	if format == "json" {
		err := printJSON(env.stdout, struct {
			Error  string  `json:"error"`
			Probes []probe `json:"probes"`
		}{control.FormatError(cause), probes})
		return errors.Join(err, &exitError{code: exitFailure})
	}
	fmt.Fprintln(env.stdout, "no answer from bailiffd; seen without it:")
	var rows [][]string
	for _, p := range probes {
		rows = append(rows, probeRow(p.Name, p.OK, p.Result, p.Remedy))
	}
	if err := env.printProbes(rows); err != nil {
		return err
	}
	fmt.Fprintln(env.stdout, "which tier this host reaches is found by trying, which bailiffd does when it starts")
	return cause
}

func probeRow(name string, ok bool, result, remedy string) []string {
	verdict := "no"
	if ok {
		verdict = "yes"
	}
	return []string{name, verdict, result, remedy}
}

func (env *environment) printProbes(rows [][]string) error {
	return table(env.stdout, []string{"PROBE", "OK", "RESULT", "WHAT WOULD HELP"}, rows)
}

func (env *environment) printStatus(m *controlv1.StatusResponse) error {
	facts := [][2]string{
		{"tier", tierText(m.Tier)},
		{"bailiffd", m.Version + ", up since " + env.when(m.Started)},
		{"policies", fmt.Sprintf("%d, generation %d", m.Policies, m.Generation)},
		{"sessions", strconv.Itoa(int(m.Sessions))},
		{"events lost", strconv.FormatUint(m.Dropped, 10)},
		{"state", m.StateDirectory},
		{"cgroup", m.Cgroup},
	}
	for _, f := range facts {
		fmt.Fprintf(env.stdout, "%-12s %s\n", f[0], audit.Printable(f[1]))
	}
	fmt.Fprintln(env.stdout)
	var rows [][]string
	for _, p := range m.Probes {
		rows = append(rows, probeRow(p.Name, p.Ok, p.Result, p.Remedy))
	}
	if err := env.printProbes(rows); err != nil {
		return err
	}
	if len(m.Maps) == 0 {
		return nil
	}
	fmt.Fprintln(env.stdout)
	rows = nil
	for _, u := range m.Maps {
		rows = append(rows, []string{u.Name, strconv.FormatUint(u.Used, 10), strconv.FormatUint(u.Capacity, 10), percent(u.Used, u.Capacity)})
	}
	return table(env.stdout, []string{"MAP", "USED", "CAPACITY", "FULL"}, rows)
}

func percent(used, capacity uint64) string {
	if capacity == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*float64(used)/float64(capacity))
}

func tierText(tier string) string {
	switch tier {
	case "full":
		return "full: files, programs and network are enforced by LSM and cgroup programs"
	case "basic":
		return "basic: network by cgroup programs, files and programs by Landlock at launch; see what would help below"
	}
	return strings.TrimSpace(tier)
}
