// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/launch"
)

const runHelp = `Run a command confined, as a session of an agent.

The terminal, the working directory, signals, job control and the exit status
are those of the command. Under sudo it runs as the user who called sudo. Of the
environment, the variables that the policy drops are not handed on (by default
those that look like secrets). BAILIFF_SESSION holds the session's id. Programs
in a session can't gain privileges: sudo, su and the like do not work there.

Open descriptors other than standard input, output and error are closed, but for
those that --keep-fd names, which the command has under the same numbers. It may go
on reading and writing through one whatever the policy says. What it opens by way
of one is judged as ever; so are, on the full tier, mapping it as a program, whom a
socket connects to, and each use of a TCP or UDP socket, which the basic tier doesn't
hand on. The log says which descriptors a session was given.

When it has ended, what it was denied is printed to standard error, with the
policy lines that would have allowed it.

If this command is killed with SIGKILL, so is the session's command. SIGINT and
SIGQUIT reach the command from the terminal; other signals are passed on.

Exit status: that of the command, or
  125  bailiffd can't be reached or refused, or the command line is wrong
  126  the command was found and can't be executed
  127  the command was not found`

const runExample = `  bailiff run --agent code-reviewer --task PR-17 -- python3 agent.py
  sudo bailiff run --agent build --context ticket=CHG-12 -- make test
  bailiff run --agent reviewer --keep-fd 3 -- ./review 3>report.txt`

// launcher runs a command to its end: launch.Run, or a test's.
type launcher func(launch.Options) (launch.Status, error)

func runCommand(env *environment) *cobra.Command {
	return runCommandWith(env, launch.Run, launch.Status.Exit)
}

// runCommandWith ends the process by die after a command that a signal killed.
func runCommandWith(env *environment, start launcher, die func(launch.Status)) *cobra.Command {
	o := launch.Options{Executable: "/proc/self/exe", Args: []string{"bailiff", confineName}}
	var context, keep []string
	c := &cobra.Command{
		Use:     "run --agent NAME|SPIFFE-ID [flags] -- COMMAND [ARGUMENT...]",
		Short:   "Run a command confined, as a session of an agent",
		Long:    runHelp,
		Example: runExample,
		Args:    cobra.ArbitraryArgs,
	}
	c.Flags().SetInterspersed(false) // the command's flags are its own, also without --
	c.Flags().StringVar(&o.Agent, "agent", "", "agent to run as: a name of the local trust domain, or a SPIFFE ID (required)")
	c.Flags().StringVar(&o.Task, "task", "", "id of the task the session works on, for conditions and the log")
	c.Flags().StringArrayVar(&context, "context", nil, "more about the task as KEY=VALUE; may be repeated")
	c.Flags().StringArrayVar(&keep, "keep-fd", nil, "open descriptor N, from 3 to 1023, that the command has too; N,M and repeated for more")
	c.Flags().StringVar(&o.User, "user", "", "run as this user; needs root")
	c.Flags().BoolVarP(&o.Quiet, "quiet", "q", false, "don't print what was denied")
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return notStarted(flagError(c, err)) })
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Command = args
		if err := complete(env, &o, context, keep); err != nil {
			return notStarted(err)
		}
		status, err := start(o)
		if err != nil {
			return notStarted(err)
		}
		if status.Signal != 0 {
			die(status)
		}
		if code := status.ExitCode(); code != 0 {
			return &exitError{code: code}
		}
		return nil
	}
	return c
}

// notStarted gives an error a status that no one takes for the command's own.
func notStarted(err error) error {
	var failed *launch.Error
	if errors.As(err, &failed) {
		return &exitError{failed.ExitCode(), failed}
	}
	return &exitError{launch.ExitFailed, err}
}

// complete adds what is not a flag, and checks what is.
func complete(env *environment, o *launch.Options, context, keep []string) error {
	if o.Agent == "" {
		return usageError("`bailiff run` needs --agent: the name or SPIFFE ID that a policy is for (`bailiff policy list`)")
	}
	if len(o.Command) == 0 {
		return usageError("`bailiff run` needs a command: bailiff run --agent %s -- COMMAND", o.Agent)
	}
	var err error
	if o.Context, err = parseContext(context); err != nil {
		return err
	}
	if o.Keep, err = parseDescriptors(keep); err != nil {
		return err
	}
	o.AdminSocket = env.socket
	o.AgentSocket = env.getenv("BAILIFF_AGENT_SOCKET")
	if o.AgentSocket == "" {
		beside, err := filepath.Abs(filepath.Join(filepath.Dir(env.socket), "agent.sock"))
		if err != nil {
			return err
		}
		o.AgentSocket = beside
	}
	o.Environ = os.Environ()
	o.Stderr = env.stderr
	return nil
}

// parseContext reads KEY=VALUE pairs.
func parseContext(pairs []string) (map[string]string, error) {
	values := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if _, twice := values[key]; !ok || key == "" || twice {
			return nil, usageError("--context %q must be KEY=VALUE, and each key given once", pair)
		}
		values[key] = value
	}
	return values, nil
}

// parseDescriptors reads lists of numbers, which the launcher judges.
func parseDescriptors(lists []string) (numbers []int, err error) {
	for _, list := range lists {
		for text := range strings.SplitSeq(list, ",") {
			n, err := strconv.Atoi(text)
			if err != nil {
				return nil, usageError("--keep-fd %q must be the number of an open descriptor, or several: N,M", list)
			}
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}
