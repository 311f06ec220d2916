// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// shellControl is the descriptor on which beShell waits for its fg command.
const shellControl = 3

// beShell is the job control of a shell and nothing more: it runs one job in
// the foreground of its terminal, takes the terminal back when the job stops,
// and goes on with it at every line from shellControl. A real shell's line
// editor would lose keys that come while it sets the terminal up.
func beShell(args []string) int {
	control := bufio.NewReader(os.NewFile(shellControl, "control"))
	unix.CloseOnExec(shellControl)
	job := exec.Command(args[0], args[1:]...)
	job.Stdin, job.Stdout, job.Stderr = os.Stdin, os.Stdout, os.Stderr
	job.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0}
	if err := job.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	group := job.Process.Pid
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(group, &ws, unix.WUNTRACED, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			fmt.Println(err)
			return 1
		}
		foreground(unix.Getpgrp())
		if !ws.Stopped() {
			fmt.Println("status", ws.ExitStatus(), int(ws.Signal()))
			return 0
		}
		fmt.Println("stopped")
		if _, err := control.ReadString('\n'); err != nil {
			return 1
		}
		fmt.Println("continued")
		foreground(group)
		unix.Kill(-group, unix.SIGCONT)
	}
}

// foreground gives the terminal to a group. SIGTTOU, blocked here, would stop
// who does that from the background.
func foreground(group int) {
	ttou := unix.Sigset_t{}
	ttou.Val[0] = 1 << (unix.SIGTTOU - 1)
	var before unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &before)
	_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, group)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}
