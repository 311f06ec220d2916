// SPDX-License-Identifier: Apache-2.0

// Command bailiff launches agents in confined sessions, checks and applies their
// policies, and tells what they did.
//
// Exit status: 0 done, 1 it could not be done, 2 wrong usage or bad input.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/control"
)

// version is set by the linker.
var version = "unknown"

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(context.Background(), newEnvironment())) }

// commands is the table of all commands, in the order of the help.
func commands() []func(*environment) *cobra.Command {
	return []func(*environment) *cobra.Command{
		runCommand,
		policyCommand,
		sessionsCommand,
		grantsCommand,
		tailCommand,
		doctorCommand,
		versionCommand,
		confineCommand,
	}
}

// run executes one command line and returns its exit status.
func run(ctx context.Context, env *environment) int {
	return env.report(rootCommand(env).ExecuteContext(ctx))
}

func rootCommand(env *environment) *cobra.Command {
	root := group(&cobra.Command{
		Use:           "bailiff",
		Short:         "Confine agents in the kernel, and see what they do",
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetArgs(env.args)
	root.SetIn(env.stdin)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	root.SetFlagErrorFunc(flagError)
	socket := control.AdminSocket
	if s := env.getenv("BAILIFF_SOCKET"); s != "" {
		socket = s
	}
	flags := root.PersistentFlags()
	flags.StringVar(&env.socket, "socket", socket, "bailiffd's admin socket (environment: BAILIFF_SOCKET)")
	flags.StringVar(&env.stateDir, "state-dir", "/var/lib/bailiff", "bailiffd's state directory, for reading its log")
	for _, command := range commands() {
		root.AddCommand(command(env))
	}
	root.InitDefaultCompletionCmd()
	return root
}

// exitError is an error with an exit status. Without Err nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// report prints an error as one sentence and returns the exit status.
func (env *environment) report(err error) int {
	if err == nil {
		return exitOK
	}
	code := exitFailure
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err == nil {
			return exit.code
		}
		code = exit.code
	}
	fmt.Fprintf(env.stderr, "bailiff: %s\n", audit.Printable(control.FormatError(err)))
	return code
}
