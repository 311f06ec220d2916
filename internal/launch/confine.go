// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	controlv1 "bailiff.dev/bailiff/internal/control/v1"
)

// Confine is the stub: it turns this process into the command that the parent
// ordered, confined. Its arguments are those that Run adds to Options.Args. It must
// be called on the process's first thread, with nothing else going on. It returns
// only when that failed, with the status to exit with; the parent says why.
func Confine(args []string) int {
	var o order
	orderAt, reportAt, err := ownNumbers(args)
	if err == nil {
		err = gob.NewDecoder(os.NewFile(orderAt, "orders")).Decode(&o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bailiff: this command is for bailiff itself: use `bailiff run`")
		return ExitFailed
	}
	return o.confine(gob.NewEncoder(os.NewFile(reportAt, "reports")))
}

// ownNumbers reads the numbers of the descriptors that the stub reads one order
// from, and writes its reports to.
func ownNumbers(args []string) (orderAt, reportAt uintptr, err error) {
	if len(args) != 2 {
		return 0, 0, errors.New("two descriptors are needed")
	}
	var numbers [2]uint64
	for i := range numbers {
		n, parsed := strconv.ParseUint(args[i], 10, 16)
		err = errors.Join(err, parsed)
		numbers[i] = n
	}
	return uintptr(numbers[0]), uintptr(numbers[1]), err
}

func (o *order) confine(enc *gob.Encoder) int {
	err := o.carryOut(func(session string) error { return enc.Encode(report{Session: session}) })
	// When the parent is gone nobody is left to read it; the status remains.
	_ = enc.Encode(report{Failure: err})
	return err.Code
}

// carryOut ends in the exec, or returns why it did not get there.
func (o *order) carryOut(joined func(session string) error) *Error {
	if err := o.prepare(); err != nil {
		return failure(ExitFailed, "prepare the session: %v", err)
	}
	answer, refused := o.join()
	if refused != nil {
		return refused
	}
	session := answer.GetSession().GetId()
	if err := joined(session); err != nil {
		return failure(ExitFailed, "report session %s: %v", session, err)
	}
	warnings, err := o.restrictTier(answer)
	if err != nil {
		return failure(ExitFailed, "confine session %s: %v", session, err)
	}
	warn(append(answer.GetWarnings(), warnings...))
	// Before the search: what these capabilities could find, the exec can't.
	if err := keepCapabilities(answer.GetCapabilities()); err != nil {
		return failure(ExitFailed, "confine session %s: %v", session, err)
	}
	environ := environment(os.Environ(), answer.GetDropEnvironment(), o.Identity, o.additions(answer))
	file, missing := search(o.Command[0], environ)
	if missing != nil {
		return missing
	}
	if err := filterCalls(); err != nil {
		return failure(ExitFailed, "confine session %s: %v", session, err)
	}
	return o.exec(file, environ, session)
}

// prepare does what needs files or privileges: none are left afterwards.
func (o *order) prepare() error {
	if unix.Gettid() != unix.Getpid() {
		return errors.New("not on the first thread: the main goroutine is not locked (this is a defect of this build)")
	}
	if len(o.Command) == 0 {
		return errors.New("no command: name a program after --")
	}
	if err := checkStandard(); err != nil {
		return err
	}
	if err := closeOnExec(o.Kept); err != nil {
		return err
	}
	if err := forbidCores(); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := readOnlyMaps(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// join connects as the caller, whom the daemon authorises, becomes the user
// that the command runs as, and has itself labelled.
func (o *order) join() (*controlv1.LaunchResponse, *Error) {
	ctx, cancel := context.WithTimeout(context.Background(), launchTimeout)
	defer cancel()
	conn, refused := dial(ctx, o.AdminSocket)
	if refused != nil {
		return nil, refused
	}
	defer conn.Close()
	if o.Identity != nil {
		if err := o.Identity.assume(); err != nil {
			return nil, failure(ExitFailed, "run as %s: %v", o.Identity.Name, err)
		}
	}
	if err := o.dieWithParent(); err != nil {
		return nil, failure(ExitFailed, "follow the parent: %v", err)
	}
	return o.launch(ctx, conn)
}

func (o *order) launch(ctx context.Context, conn net.Conn) (*controlv1.LaunchResponse, *Error) {
	command := make([]string, len(o.Command))
	for i, word := range o.Command {
		command[i] = strings.ToValidUTF8(word, "\uFFFD")
	}
	answer, err := client(conn).Launch(ctx, connect.NewRequest(&controlv1.LaunchRequest{
		Agent: o.Agent, Task: o.Task, Context: o.Context, Command: command, Kept: describe(o.Kept),
	}))
	if err != nil {
		return nil, refusal(o.Agent, err)
	}
	if answer.Msg.GetSession().GetId() == "" {
		return nil, failure(ExitFailed, "launch %s: bailiffd named no session: install bailiff and bailiffd of one version", o.Agent)
	}
	return answer.Msg, nil
}

// dieWithParent: who kills `bailiff run` with SIGKILL, the one signal that the
// parent can't pass on, expects the command to be gone. It comes after the
// change of user, which resets it.
func (o *order) dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("set parent-death signal: %w", err)
	}
	if unix.Getppid() != o.Parent {
		return errors.New("it has ended")
	}
	return nil
}

// restrictTier does this process's own part of the tier. A tier that it doesn't
// know, or one without its rules, is no reason to go on unrestricted.
func (o *order) restrictTier(answer *controlv1.LaunchResponse) (warnings []string, err error) {
	switch l := answer.GetLandlock(); {
	case l != nil:
		if err := unjudged(o.Kept); err != nil {
			return nil, err
		}
		return restrictFiles(l)
	case answer.GetTier() == "full":
		return nil, nil
	}
	return nil, fmt.Errorf("bailiffd gave no file rules for the tier %q: install bailiff and bailiffd of one version", answer.GetTier())
}

// warn writes to standard error; that nobody reads it must not end the session
// before it starts. The exec takes the handler away.
func warn(warnings []string) {
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	for _, w := range warnings {
		fmt.Fprintln(os.Stderr, "bailiff: warning:", printable(w))
	}
}

// additions are the variables of the policy and those of every session.
func (o *order) additions(answer *controlv1.LaunchResponse) map[string]string {
	set := map[string]string{}
	for name, value := range answer.GetSetEnvironment() {
		set[name] = value
	}
	set["BAILIFF_SESSION"] = answer.GetSession().GetId()
	set["BAILIFF_AGENT_SOCKET"] = o.AgentSocket
	return set
}

func (o *order) exec(file string, environ []string, session string) *Error {
	if signal.Ignored(unix.SIGINT) {
		// A shell without job control ignores both for what runs in the
		// background; the Go runtime kept only the first.
		signal.Ignore(unix.SIGQUIT)
	}
	err := syscall.Exec(file, o.Command, environ)
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without #!, as execvp treats it.
		err = syscall.Exec("/bin/sh", append([]string{"/bin/sh", file}, o.Command[1:]...), environ)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return failure(ExitNotFound, "%s: its interpreter or loader was not found: check the first line of a script", file)
	case errors.Is(err, os.ErrPermission):
		return failure(ExitNotExecutable, "%s: %v: the policy of %s must allow read and execute on it (and on the interpreter of a script): see `bailiff tail --session %s`", file, err, o.Agent, session)
	}
	return failure(ExitNotExecutable, "%s: cannot be executed: %v: check that it is a program for this machine", file, err)
}
