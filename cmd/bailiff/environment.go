// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"bailiff.dev/bailiff/internal/control"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
)

// environment is all that a command sees of its process, so that a test can run
// one without a process.
type environment struct {
	args       []string // without the program's name
	stdin      io.Reader
	stdout     io.Writer
	stderr     io.Writer
	getenv     func(string) string
	now        func() time.Time
	zone       *time.Location
	isTerminal func(any) bool // of one of the streams above

	// localProbes tells what can be seen of the host without the daemon.
	localProbes func() []probe

	// Global flags.
	socket   string
	stateDir string
}

func newEnvironment() *environment {
	return &environment{
		args:        os.Args[1:],
		stdin:       os.Stdin,
		stdout:      os.Stdout,
		stderr:      os.Stderr,
		getenv:      os.Getenv,
		now:         time.Now,
		zone:        time.Local,
		isTerminal:  isTerminal,
		localProbes: hostProbes,
	}
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (env *environment) admin() controlv1connect.AdminServiceClient {
	return control.NewAdminClient(env.socket)
}
