// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Options say what to launch.
type Options struct {
	Agent   string            // a name in the local trust domain, or a SPIFFE ID
	Task    string            // may be empty
	Context map[string]string // free, for conditions and the log
	Command []string          // at least the program
	User    string            // run as this user; empty: who called, also through sudo
	Quiet   bool              // no summary of denials
	Keep    []int             // inherited descriptors, 3 to 1023, that the command has under the same numbers; Run closes them here

	AdminSocket string
	AgentSocket string // told to the command

	Environ []string  // the command's, before the policy's drops
	Stderr  io.Writer // for the summary; the command has descriptor 2

	Executable string   // the stub's: a file whose main calls Confine when it is run with
	Args       []string // these arguments
}

// Run launches the command and returns how it ended. An error is an *Error:
// the command was not started. The calling goroutine must be the main one,
// locked to its thread.
func Run(o Options) (Status, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	order, err := o.order()
	if err != nil {
		return Status{}, err
	}
	caught := catchSignals()
	defer func() { signal.Stop(caught); close(caught) }()
	c, err := start(o.Executable, o.Args, o.Environ, order)
	if err != nil {
		return Status{}, failure(ExitFailed, "launch %s: %v", o.Agent, err)
	}
	go forward(caught, c)
	status, out, err := c.finish()
	if err != nil {
		return Status{}, failure(ExitFailed, "launch %s: %v", o.Agent, err)
	}
	if out.failure != nil {
		return Status{}, out.failure
	}
	if out.session != "" && !o.Quiet {
		summarise(o.Stderr, o.AdminSocket, out.session)
	}
	return status, nil
}

func (o *Options) order() (order, error) {
	if len(o.Command) == 0 {
		return order{}, failure(ExitFailed, "no command: name a program after --")
	}
	for _, s := range o.texts() {
		if !utf8.ValidString(s) {
			return order{}, failure(ExitFailed, "agent, task and context must be UTF-8 text: %q", s)
		}
	}
	getenv := func(name string) string { v, _ := lookup(o.Environ, name); return v }
	id, err := ResolveIdentity(o.User, os.Geteuid(), getenv)
	if err != nil {
		return order{}, err
	}
	kept, err := inspectKept(o.Keep)
	if err != nil {
		return order{}, err
	}
	return order{
		AdminSocket: o.AdminSocket, AgentSocket: o.AgentSocket,
		Agent: o.Agent, Task: o.Task, Context: o.Context,
		Command: o.Command, Kept: kept, Identity: id, Parent: os.Getpid(),
	}, nil
}

func (o *Options) texts() []string {
	texts := []string{o.Agent, o.Task}
	for k, v := range o.Context {
		texts = append(texts, k, v)
	}
	return texts
}

// finish reads the reports while it follows the child.
func (c *child) finish() (Status, outcome, error) {
	type read struct {
		out outcome
		err error
	}
	done := make(chan read, 1)
	go func() {
		out, err := readReports(c.reports)
		c.reports.Close()
		done <- read{out, err}
	}()
	status, err := c.follow()
	r := <-done
	switch {
	case status.Signal == unix.SIGKILL && r.out.session == "":
		err = errors.New("it was killed before the session began: see the log of bailiffd, and the kernel's for lack of memory")
	case status.Signal != 0:
		return status, r.out, err // killed, perhaps in the middle of a report
	case err == nil && r.err == nil && r.out.session == "" && r.out.failure == nil:
		err = fmt.Errorf("the launcher ended with status %d before it said why: see its message above", status.Code)
	}
	return status, r.out, errors.Join(err, r.err)
}
