// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

const sessionsAdoptHelp = `Put a running process and all its descendants into a session of their own.

The tree is stopped, looked at, moved into the session, and goes on. What it had
before is listed with what became of it:
  fine         the policy allows it
  judged       it stays, and each use of it is judged from now on
  closed       a connection that the policy does not allow was ended
  not-covered  it stays usable, and nothing judges that
  kill         an open file, a mapping or the like that the policy forbids, and
               that nothing would judge again

One thing of the last kind and nothing is adopted: the tree goes on as it was.
With --kill-forbidden the processes that have such things are killed, and the
others adopted. An io_uring rules adoption out in any case.

The table leaves out what is fine; -o json has all of it. Needs the full tier: see
"bailiff doctor". A process that a service manager watches by its cgroup leaves it.

What a session has that "bailiff run" starts, and an adopted one has not, is
printed to standard error.

Exit status:
  0  adopted, or with --dry-run: it could be
  1  not adopted: the tree goes on as it was, or what does not was told
  2  the command line is wrong`

const sessionsAdoptExample = `  sudo bailiff sessions adopt 4711 --agent code-reviewer --dry-run
  sudo bailiff sessions adopt 4711 --agent code-reviewer --task PR-17 --kill-forbidden`

func sessionsAdoptCommand(env *environment) *cobra.Command {
	m := &controlv1.AdoptSessionRequest{}
	var context []string
	c := &cobra.Command{
		Use: "adopt PID --agent NAME|SPIFFE-ID", Short: "Put a running process tree into a session",
		Long: sessionsAdoptHelp, Example: sessionsAdoptExample, Args: wants(1, 1, "the id of a running process"),
	}
	format := output(c, "table", "json")
	c.Flags().StringVar(&m.Agent, "agent", "", "agent that it becomes: a name of the local trust domain, or a SPIFFE ID (required)")
	c.Flags().StringVar(&m.Task, "task", "", "id of the task the session works on, for conditions and the log")
	c.Flags().StringArrayVar(&context, "context", nil, "more about the task as KEY=VALUE; may be repeated")
	kill := c.Flags().Bool("kill-forbidden", false, "kill the processes that have what the policy forbids, and adopt the others")
	c.Flags().BoolVar(&m.DryRun, "dry-run", false, "stop the tree, look at it, and let it go on as it was")
	c.RunE = func(c *cobra.Command, args []string) error {
		pid, err := strconv.ParseInt(args[0], 10, 32)
		if err != nil || pid <= 0 {
			return usageError("`bailiff sessions adopt` needs the id of a running process, and %q is none", args[0])
		}
		if m.Agent == "" {
			return usageError("`bailiff sessions adopt` needs --agent: the name or SPIFFE ID that a policy is for (`bailiff policy list`)")
		}
		if m.Context, err = parseContext(context); err != nil {
			return err
		}
		m.Pid = uint32(pid)
		if *kill {
			m.OnForbidden = controlv1.OnForbidden_ON_FORBIDDEN_KILL
		}
		answer, err := env.admin().AdoptSession(c.Context(), connect.NewRequest(m))
		if err != nil {
			return badInput(err)
		}
		if format.value == "json" {
			err = printMessage(env.stdout, answer.Msg)
		} else {
			err = env.printAdopted(answer.Msg, m.Pid)
		}
		if answer.Msg.Refusal != "" {
			return errors.Join(err, fmt.Errorf("process %d was not adopted: %s; it goes on as it was", m.Pid, audit.Escape(answer.Msg.Refusal)))
		}
		return err
	}
	return c
}

// printAdopted prints what a tree had, and what became of it.
func (env *environment) printAdopted(m *controlv1.AdoptSessionResponse, pid uint32) error {
	var rows [][]string
	for _, x := range m.Report {
		if x.Verdict != "fine" {
			rows = append(rows, []string{strconv.Itoa(int(x.Pid)), x.Kind, x.What, x.Verdict, x.Why})
		}
	}
	var err error
	if len(rows) > 0 {
		err = table(env.stdout, []string{"PID", "KIND", "WHAT", "VERDICT", "WHY"}, rows)
	}
	for _, limit := range m.Limits {
		_, print := fmt.Fprintf(env.stderr, "note: %s\n", audit.Escape(limit))
		err = errors.Join(err, print)
	}
	switch {
	case m.Refusal != "":
		return err
	case m.Session == nil:
		_, print := fmt.Fprintf(env.stdout, "%d can be adopted, with %s in all\n", pid, processes(m.Processes))
		return errors.Join(err, print)
	}
	_, print := fmt.Fprintf(env.stdout, "adopted %d as %s: %s, %d killed\n", pid, audit.Escape(m.Session.Id), processes(m.Processes), len(m.Killed))
	return errors.Join(err, print)
}

// processes is "1 process" or "2 processes".
func processes(n uint32) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}
