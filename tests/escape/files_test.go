// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTechniques reach a file by another name than its own.
func openTechniques() []technique {
	return []technique{
		{
			id: "open", title: "open a file that no rule names", hooks: "file_open", basic: true,
			attack:    func(f *field) error { return steal(f.Dir + "/secret/f") },
			neighbour: func(f *field) error { return peek(f.Work + "/notes") },
			seen:      "open default %DIR%/secret/f",
		},
		{
			id: "list", title: "list a directory that no rule names", hooks: "file_open", basic: true,
			attack:    func(f *field) error { _, err := os.ReadDir(f.Dir + "/secret"); return err },
			neighbour: func(f *field) error { _, err := os.ReadDir(f.Work + "/tree"); return err },
			seen:      "open default %DIR%/secret",
		},
		{
			id: "open-pattern", title: "open a file whose name is denied everywhere", hooks: "file_open",
			attack: func(f *field) error { return steal(f.Work + "/.env") },
			neighbour: func(f *field) error {
				return errors.Join(os.MkdirAll(f.own("near"), 0o777), fresh(f.own("near")+"/.envrc"), peek(f.own("near")+"/.envrc"))
			},
			seen: "open narrow/files/2 %WORK%/.env",
		},
		{
			id: "open-denied-inside", title: "open a file that a deny inside an allowed tree names", hooks: "file_open",
			attack:    func(f *field) error { return steal(f.Work + "/sealed/f") },
			neighbour: func(f *field) error { return peek(f.Work + "/tree/notes") },
			seen:      "open narrow/files/1 %WORK%/sealed/f",
		},
		{
			id: "open-symlink", title: "open through a symbolic link", hooks: "file_open", basic: true,
			attack: func(f *field) error {
				link := f.own("link")
				os.Remove(link)
				if err := os.Symlink(f.Dir+"/secret/f", link); err != nil {
					return err
				}
				return steal(link)
			},
			neighbour: func(f *field) error {
				link := f.own("link-near")
				os.Remove(link)
				if err := os.Symlink("notes", link); err != nil {
					return err
				}
				return peek(link)
			},
			seen: "open default %DIR%/secret/f",
		},
		{
			id: "open-proc-root", title: "open through /proc/self/root and /proc/self/cwd", hooks: "file_open", basic: true,
			attack: func(f *field) error {
				if err := steal("/proc/self/cwd/../secret/f"); err == nil {
					return nil
				}
				return steal("/proc/self/root" + f.Dir + "/secret/f")
			},
			neighbour: func(f *field) error { return peek("/proc/self/root" + f.Work + "/notes") },
			seen:      "open default %DIR%/secret/f",
		},
		{
			id: "open-path-descriptor", title: "open with O_PATH, then again through /proc/self/fd", hooks: "file_open", basic: true,
			attack:    func(f *field) error { return reopen(f.Dir+"/secret/f", steal) },
			neighbour: func(f *field) error { return reopen(f.Work+"/notes", peek) },
			seen:      "open default %DIR%/secret/f",
		},
	}
}

// reopen opens a path with O_PATH, and gives what leads to it to a function.
func reopen(path string, use func(string) error) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return use(fmt.Sprintf("/proc/self/fd/%d", fd))
}
