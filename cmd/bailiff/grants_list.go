// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

func grantsListCommand(env *environment) *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the grants that have not ended", Args: wants(0, 0, "")}
	format := output(c, "table", "json")
	all := c.Flags().Bool("all", false, "ended ones too, as far as bailiffd remembers them")
	session := c.Flags().String("session", "", "only this session's")
	c.RunE = func(c *cobra.Command, _ []string) error {
		answer, err := env.admin().ListGrants(c.Context(), connect.NewRequest(&controlv1.ListGrantsRequest{All: *all, Session: *session}))
		if err != nil {
			return err
		}
		if format.value == "json" {
			return printMessage(env.stdout, answer.Msg)
		}
		if len(answer.Msg.Grants) == 0 {
			_, err := fmt.Fprintln(env.stderr, "no grants; `bailiff grants issue SESSION --connect ADDRESS:PORT --ttl 10m` issues one")
			return err
		}
		return env.printGrants(answer.Msg.Grants)
	}
	return c
}

func (env *environment) printGrants(grants []*controlv1.Grant) error {
	var rows [][]string
	for _, g := range grants {
		state, remaining, uses := g.State, "", "any"
		if g.Ended != nil {
			state += " " + env.when(g.Ended)
			uses = ""
		} else {
			remaining = left(g.Remaining.AsDuration())
		}
		if g.UsesLeft != nil {
			uses = fmt.Sprintf("%d of %d", *g.UsesLeft, g.Uses)
		}
		rows = append(rows, []string{g.Id, g.Session, audit.ShortAgent(g.Agent), strings.Join(grantWords(g), " "), remaining, uses, state})
	}
	return table(env.stdout, []string{"ID", "SESSION", "AGENT", "WHAT", "REMAINING", "USES LEFT", "STATE"}, rows)
}

// left is a remaining time in whole seconds, begun ones counted.
func left(d time.Duration) string {
	return ((d + time.Second - 1) / time.Second * time.Second).String()
}

// grantWords says what is granted as the flags of issue do.
func grantWords(g *controlv1.Grant) []string {
	var words []string
	for _, n := range g.Network {
		address, ports := n.Address, "*"
		if strings.Contains(address, ":") {
			address = "[" + address + "]"
		}
		if len(n.Ports) > 0 {
			ports = strings.Join(n.Ports, ",")
		}
		words = append(words, address+":"+ports+"/"+n.Protocol)
	}
	for _, f := range g.Files {
		path := f.Path
		if strings.ContainsAny(path, " \t") {
			path = strconv.Quote(path)
		}
		words = append(words, path+":"+strings.Join(f.Access, ","))
	}
	return words
}
