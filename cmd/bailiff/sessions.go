// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func sessionsCommand(env *environment) *cobra.Command {
	c := group(&cobra.Command{Use: "sessions", Short: "List, stop and adopt sessions"})
	c.AddCommand(sessionsListCommand(env), sessionsStopCommand(env), sessionsAdoptCommand(env))
	return c
}

func sessionsListCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the sessions that run", Args: wants(0, 0, "")}
	format := output(c, "table", "json")
	all := c.Flags().Bool("all", false, "ended ones too, as far as bailiffd remembers them")
	c.RunE = func(c *cobra.Command, _ []string) error {
		answer, err := env.admin().ListSessions(c.Context(), connect.NewRequest(&controlv1.ListSessionsRequest{All: *all}))
		if err != nil {
			return err
		}
		if format.value == "json" {
			return printMessage(env.stdout, answer.Msg)
		}
		if len(answer.Msg.Sessions) == 0 {
			_, err := fmt.Fprintln(env.stderr, "no sessions; `bailiff run --agent NAME -- COMMAND` starts one")
			return err
		}
		return env.printSessions(answer.Msg.Sessions)
	}
	return c
}

func (env *environment) printSessions(sessions []*controlv1.Session) error {
	var rows [][]string
	for _, s := range sessions {
		ended := "running"
		if s.Ended != nil {
			ended = env.when(s.Ended)
		}
		var command []string
		for _, word := range s.Command {
			command = append(command, audit.Escape(word))
		}
		rows = append(rows, []string{s.Id, audit.ShortAgent(s.Agent), s.Task, userName(s.Uid), strconv.Itoa(int(s.Pid)),
			strconv.Itoa(int(s.Processes)), strconv.FormatUint(s.Denied, 10), s.Tier, env.when(s.Started), ended, shorten(strings.Join(command, " "), 60)})
	}
	return table(env.stdout, []string{"ID", "AGENT", "TASK", "USER", "PID", "PROCESSES", "DENIED", "TIER", "STARTED", "ENDED", "COMMAND"}, rows)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// shorten cuts s to max characters; what is escaped is ASCII already.
func shorten(s string, max int) string {
	if r := []rune(s); len(r) > max {
		return string(r[:max-1]) + "…"
	}
	return s
}

func sessionsStopCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "stop ID",
		Short: "Kill every process of a session",
		Args:  wants(1, 1, "the id of a session (`bailiff sessions list`)"),
		RunE: func(c *cobra.Command, args []string) error {
			answer, err := env.admin().StopSession(c.Context(), connect.NewRequest(&controlv1.StopSessionRequest{Id: args[0]}))
			if err != nil {
				return err
			}
			processes := "processes"
			if answer.Msg.Killed == 1 {
				processes = "process"
			}
			_, err = fmt.Fprintf(env.stdout, "stopped %s: killed %d %s\n", audit.Escape(args[0]), answer.Msg.Killed, processes)
			return err
		},
	}
}
