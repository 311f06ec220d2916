// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// defaultPath is where execvp of glibc looks when PATH is not set.
const defaultPath = "/bin:/usr/bin"

// search finds the file of a command as execvp does. It only asks for
// metadata: on the full tier opening is denied by now, and exec is what
// decides.
func search(name string, environ []string) (string, *Error) {
	if name == "" {
		return "", failure(ExitNotFound, "the command is an empty string: name a program after --")
	}
	if strings.Contains(name, "/") {
		return name, unusable(name, executable(name))
	}
	path, ok := lookup(environ, "PATH")
	if !ok {
		path = defaultPath
	}
	var refused error
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + name
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			refused = err
		}
	}
	if refused != nil {
		return "", unusable(name, refused)
	}
	return "", failure(ExitNotFound, "%s: command not found in PATH of the session (%s): give its full path, or see environment in the policy", name, path)
}

func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return &os.PathError{Op: "exec", Path: file, Err: syscall.EISDIR}
	}
	if err := unix.Access(file, unix.X_OK); err != nil {
		return &os.PathError{Op: "exec", Path: file, Err: err}
	}
	return nil
}

func unusable(name string, err error) *Error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return failure(ExitNotFound, "%s: command not found: check the path", name)
	case errors.Is(err, syscall.EISDIR):
		return failure(ExitNotExecutable, "%s: is a directory: name a program in it", name)
	}
	return failure(ExitNotExecutable, "%s: cannot be executed: %v: check the file's mode (chmod +x) and the directories above it", name, rootCause(err))
}

// rootCause is the error number inside err, whose text needs no path again.
func rootCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
