// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"runtime"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Order is what the child is told.
type Order struct {
	Landlock string // the one file that Landlock is to leave open from now on; "": no Landlock
	Acts     []Act
}

// report is what it answers: for each act an errno, 0 for success.
type report struct {
	Ends    []uint32
	Failure string
}

// Serve carries out the orders that come by standard input, until there are no
// more. It returns the status to exit with. It must be called at once by main.
func Serve() int {
	runtime.LockOSThread()
	enc, dec := gob.NewEncoder(os.Stdout), gob.NewDecoder(os.Stdin)
	failed := prepare()
	var h hand
	for {
		var o Order
		if err := dec.Decode(&o); err != nil {
			if failed == nil {
				fmt.Fprintln(os.Stderr, "bailiffd: this command is for bailiffd itself")
			}
			return 1
		}
		if failed == nil && o.Landlock != "" {
			failed = restrict(o.Landlock)
		}
		r := report{}
		if failed != nil {
			r.Failure = failed.Error()
		} else {
			for _, a := range o.Acts {
				r.Ends = append(r.Ends, errnoOf(h.try(a)))
			}
		}
		if err := enc.Encode(r); err != nil {
			return 1
		}
	}
}

func prepare() error {
	if unix.Gettid() != unix.Getpid() {
		return errors.New("main is not on the first thread: it is tried again")
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}

// restrict leaves this thread one file to read.
func restrict(file string) error {
	set, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: ll.AccessFSReadFile}, 0)
	if err != nil {
		return fmt.Errorf("landlock create ruleset: %w", err)
	}
	defer unix.Close(set)
	fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	defer unix.Close(fd)
	if err := ll.LandlockAddPathBeneathRule(set, &ll.PathBeneathAttr{AllowedAccess: ll.AccessFSReadFile, ParentFd: fd}, 0); err != nil {
		return fmt.Errorf("landlock grant %s: %w", file, err)
	}
	if err := ll.LandlockRestrictSelf(set, 0); err != nil {
		return fmt.Errorf("landlock restrict self: %w", err)
	}
	return nil
}
