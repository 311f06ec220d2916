// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

const grantsIssueHelp = `Give a running session access until a deadline.

A grant opens only what no line of the agent's policies speaks of: a line that
denies, and a guardrail, stand. At its end, by deadline or by "bailiff grants
revoke", the kernel denies new opens and connects, reads and writes of files that
are open under it, and drops the packets of its connections, whether bailiffd runs
or not. Changing the clock or suspending the host does not move the deadline.

--connect ADDRESS:PORTS   an IP address or a network (IPv6 in brackets), and ports
                          (443, 8000-8099, several with commas, or * for all)
--file PATH:ACCESS        a file or directory and everything below it, and one or
                          more of read, write, create, delete, execute

What is read through a mapping cannot be denied any more: --kill-mapped has a
session killed that has mapped a file of the grant, when that ends.`

const grantsIssueExample = `  bailiff grants issue s-abcdefgh --connect 10.0.0.5:443 --ttl 10m
  bailiff grants issue s-abcdefgh --connect '[fd00::/8]:53,853' --protocol udp --ttl 1h
  bailiff grants issue s-abcdefgh --file /srv/data:read,write --ttl 5m --uses 3 --reason CHG-12`

// grantFlags are the flags of one grant.
type grantFlags struct {
	connect, file []string
	protocol      choice
	ttl           time.Duration
	uses          uint32
	kill          bool
	reason        string
}

func grantsIssueCommand(env *environment) *cobra.Command {
	o := grantFlags{protocol: choice{"tcp", []string{"tcp", "udp"}}}
	c := &cobra.Command{
		Use: "issue SESSION", Short: "Give a session access until a deadline", Long: grantsIssueHelp, Example: grantsIssueExample,
		Args: wants(1, 1, "the id of a session (`bailiff sessions list`)"), ValidArgsFunction: env.completeSessions,
	}
	f := c.Flags()
	f.StringArrayVar(&o.connect, "connect", nil, "let it connect to ADDRESS:PORTS; may be repeated")
	f.StringArrayVar(&o.file, "file", nil, "let it use PATH:ACCESS; may be repeated")
	f.Var(&o.protocol, "protocol", "of what is connected to")
	f.DurationVar(&o.ttl, "ttl", 0, "how long, such as 90s or 10m (required)")
	f.Uint32Var(&o.uses, "uses", 0, "how often something may be opened, run or connected to (0: any number)")
	f.BoolVar(&o.kill, "kill-mapped", false, "at the end, kill the session if it has mapped a file of the grant")
	f.StringVar(&o.reason, "reason", "", "for the record")
	format := output(c, "table", "json")
	c.RunE = func(c *cobra.Command, args []string) error {
		request, err := o.request(args[0])
		if err != nil {
			return err
		}
		answer, err := env.admin().IssueGrant(c.Context(), connect.NewRequest(request))
		if err != nil {
			return badInput(err)
		}
		for _, note := range answer.Msg.Notes {
			fmt.Fprintf(env.stderr, "note: %s\n", audit.Printable(note))
		}
		if format.value == "json" {
			return printMessage(env.stdout, answer.Msg)
		}
		_, err = fmt.Fprintf(env.stdout, "granted %s to %s for %s\n", audit.Escape(answer.Msg.Grant.Id), audit.Escape(args[0]), o.ttl)
		return err
	}
	return c
}

// request reads the flags. What the words in them mean is the daemon's to say.
func (o *grantFlags) request(session string) (*controlv1.IssueGrantRequest, error) {
	if len(o.connect)+len(o.file) == 0 {
		return nil, usageError("`bailiff grants issue` needs something to grant: --connect ADDRESS:PORTS or --file PATH:ACCESS")
	}
	if o.ttl <= 0 {
		return nil, usageError("`bailiff grants issue` needs --ttl: how long the grant lasts, such as 10m")
	}
	m := &controlv1.IssueGrantRequest{Session: session, Ttl: durationpb.New(o.ttl), Uses: o.uses, KillMapped: o.kill, Reason: o.reason}
	for _, text := range o.connect {
		n, err := parseConnect(text)
		if err != nil {
			return nil, usageError("--connect %q: %w", text, err)
		}
		n.Protocol = o.protocol.value
		m.Network = append(m.Network, n)
	}
	for _, text := range o.file {
		at := strings.LastIndexByte(text, ':')
		if at < 0 || at == len(text)-1 {
			return nil, usageError("--file %q says nothing of the access: write PATH:ACCESS, as in /srv/data:read,write", text)
		}
		m.Files = append(m.Files, &controlv1.FileAccess{Path: text[:at], Access: strings.Split(text[at+1:], ",")})
	}
	return m, nil
}

// parseConnect cuts ADDRESS:PORTS.
func parseConnect(text string) (*controlv1.NetworkAccess, error) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 || at == len(text)-1 || strings.HasSuffix(text, "]") {
		return nil, errors.New("it names no port: write ADDRESS:PORT, as in 10.0.0.5:443, or ADDRESS:* for all ports")
	}
	address, ports := text[:at], text[at+1:]
	if inner, ok := strings.CutPrefix(address, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return nil, errors.New("a bracket is not closed: write [ADDRESS]:PORT, as in [fd00::1]:443")
		}
		address = inner
	} else if strings.Contains(address, ":") {
		return nil, errors.New("write an IPv6 address in brackets, as in [fd00::1]:443 or [fd00::/8]:443")
	}
	n := &controlv1.NetworkAccess{Address: address}
	if ports != "*" {
		n.Ports = strings.Split(ports, ",")
	}
	return n, nil
}
