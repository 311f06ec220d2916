// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const loader = "/lib64/ld-linux-x86-64.so.2"

// ends runs a program; that it did nothing well is a failure.
func ends(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: it ended with %v: %s", errHeld, exit, out)
	}
	return err
}

const sharedProgram = " default %DIR%/shared/true"

// code is about a program; its neighbour is one that may run.
func code(id, title, hooks, seen string, attack func(f *field) error) technique {
	return technique{
		id: id, title: title, hooks: hooks, seen: seen, attack: attack, neighbour: func(f *field) error { return ends(f.Work + "/true") },
	}
}

// execTechniques run what the policy does not let run.
func execTechniques() []technique {
	return []technique{
		code("exec", "run a program that may only be read", "file_open", "exec"+sharedProgram, func(f *field) error { return ends(f.Dir + "/shared/true") }),
		code("exec-unnamed", "run a program that nothing names", "file_open", "exec default /usr/bin/openssl", func(f *field) error { return ends("/usr/bin/openssl", "version") }),
		code("exec-descriptor", "run it by a descriptor (execveat)", "file_open", "exec"+sharedProgram, func(f *field) error {
			return executeDescriptor(f.Dir + "/shared/true")
		}).alone(),
		code("exec-loader", "run it by the dynamic loader", "mmap_file", "map"+sharedProgram, func(f *field) error { return ends(loader, f.Dir+"/shared/true") }),
		code("exec-loader-near", "run a program that nothing names by the loader", "file_open, mmap_file", "open default /usr/bin/openssl", func(f *field) error {
			return ends(loader, "/usr/bin/openssl", "version")
		}),
		code("exec-preload", "load a library that may only be read (LD_PRELOAD)", "mmap_file", "map default %DIR%/shared/library.so", func(f *field) error {
			c := exec.Command("/usr/bin/cat", "/proc/self/maps")
			c.Env = []string{"LD_PRELOAD=" + f.Dir + "/shared/library.so"}
			out, err := c.Output()
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "library.so") && strings.Contains(line, "r-xp") {
					return nil
				}
			}
			return fmt.Errorf("%w: its code is not mapped", errHeld)
		}),
		code("exec-interpreter", "a script whose interpreter is not allowed (#!)", "file_open", "exec default /usr/bin/dash | exec default /usr/bin/bash", func(f *field) error {
			if err := os.WriteFile(f.own("script"), []byte("#!/bin/sh\nexit 0\n"), 0o777); err != nil {
				return err
			}
			return ends(f.own("script"))
		}),
		code("exec-memfd", "a program from memory (memfd_create)", "file_open", "exec", func(f *field) error {
			fd, err := memoryFile(f.Work + "/true")
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return ends(fmt.Sprintf("/proc/self/fd/%d", fd))
		}),
	}
}

// mapTechniques bring code in without an exec.
func mapTechniques() []technique {
	return []technique{
		code("map-memfd", "map memory of that kind as a program", "mmap_file", "map", func(f *field) error {
			fd, err := memoryFile(f.Work + "/true")
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return mapProgram(fd, unix.PROT_READ|unix.PROT_EXEC)
		}),
		code("map", "map a file that may only be read as a program", "mmap_file", "map"+sharedProgram, func(f *field) error {
			return withFile(f.Dir+"/shared/true", func(fd int) error { return mapProgram(fd, unix.PROT_READ|unix.PROT_EXEC) })
		}),
		code("map-later", "map it for reading, then make it executable (mprotect)", "file_mprotect", "map"+sharedProgram, func(f *field) error {
			return withFile(f.Dir+"/shared/true", func(fd int) error {
				b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
				if err != nil {
					return fmt.Errorf("before the attack: %v", err)
				}
				defer unix.Munmap(b)
				return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
			})
		}),
		code("map-personality", "have reading mean executing (READ_IMPLIES_EXEC)", "mmap_file", "map"+sharedProgram, func(f *field) error {
			return withFile(f.Dir+"/shared/true", func(fd int) error {
				if _, err := value(unix.SYS_PERSONALITY, 0x0400000); err != nil {
					return err
				}
				return mapProgram(fd, unix.PROT_READ)
			})
		}).alone().launched(),
		{
			id: "map-anonymous", title: "executable memory of no file", hooks: "none", unrecorded: "it is allowed",
			open: "compilers that run what they make need it (node, Java); what runs there is confined as the rest of the session",
			attack: func(f *field) error {
				b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
				if err != nil {
					return err
				}
				return unix.Munmap(b)
			},
		},
	}
}

// foreignTechniques call the kernel by its other entries.
func foreignTechniques() []technique {
	near := func(f *field) error { return ends(f.Work + "/true") }
	return []technique{
		{
			id: "call-32-bit", title: "open a file by the calls of 32-bit programs (int 0x80)", hooks: "file_open", launch: true, seen: "open default %DIR%/secret/f",
			attack: func(f *field) error { return foreign(f, "i386", f.Dir+"/secret/f") }, neighbour: near,
		},
		{
			id: "call-x32", title: "open a file by the calls of x32 programs", hooks: "file_open", launch: true, seen: "open default %DIR%/secret/f",
			attack: func(f *field) error { return foreign(f, "x32", f.Dir+"/secret/f") }, neighbour: near,
			impossible: "the kernel is built without the x32 calls",
		},
	}
}

func withFile(path string, use func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("before the attack: %v", err)
	}
	defer unix.Close(fd)
	return use(fd)
}

// mapProgram succeeds if what was mapped can be executed.
func mapProgram(fd, protection int) error {
	b, err := unix.Mmap(fd, 0, 4096, protection, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	at := fmt.Appendf(nil, "%x-", addressOf(b))
	for line := range bytes.Lines(maps) {
		if bytes.HasPrefix(line, at) && bytes.Contains(line, []byte("r-xp")) {
			return nil
		}
	}
	return errors.New("what was mapped is not executable")
}

// memoryFile copies a file into one that is in memory alone.
func memoryFile(from string) (int, error) {
	fd, err := unix.MemfdCreate("x", 0)
	if err != nil {
		return -1, err
	}
	program, err := os.ReadFile(from)
	if err == nil {
		_, err = unix.Write(fd, program)
	}
	return fd, err
}

// executeDescriptor becomes the program.
func executeDescriptor(path string) error {
	return withFile(path, func(fd int) error {
		empty, argv, envv := []byte{0}, [2]uintptr{text("true"), 0}, [1]uintptr{}
		// The answer comes first: nobody is left to give it after a success. A
		// failure takes it back by being the later one.
		return call(unix.SYS_EXECVEAT, uintptr(fd), pointer(&empty[0]), pointer(&argv), pointer(&envv), unix.AT_EMPTY_PATH)
	})
}

// foreign runs a program that opens a path by the calls of another ABI.
func foreign(f *field, abi, path string) error {
	program := f.own("foreign-" + abi)
	if err := os.WriteFile(program, foreignProgram(abi, path), 0o777); err != nil {
		return err
	}
	c := exec.Command(program)
	c.Stdin, c.Stdout, c.Stderr = nil, io.Discard, io.Discard
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return syscall.Errno(exit.ExitCode())
	}
	return err
}

// foreignProgram is an executable that opens a path, and exits with the number
// of the error.
func foreignProgram(abi, path string) []byte {
	const base, start = 0x400000, 0x78 // one segment, behind both headers
	var open []byte
	at := make([]byte, 4)
	switch abi {
	case "i386": // mov $5, %eax; mov path, %ebx; xor %ecx, %ecx; xor %edx, %edx; int $0x80
		open = append([]byte{0xb8, 5, 0, 0, 0, 0xbb}, append(at, 0x31, 0xc9, 0x31, 0xd2, 0xcd, 0x80)...)
	case "x32": // mov $0x40000002, %eax; mov path, %edi; xor %esi, %esi; xor %edx, %edx; syscall
		open = append([]byte{0xb8, 2, 0, 0, 0x40, 0xbf}, append(at, 0x31, 0xf6, 0x31, 0xd2, 0x0f, 0x05)...)
	}
	// xor %edi, %edi; test %eax, %eax; jns exit; neg %eax; mov %eax, %edi; exit: mov $231, %eax; syscall
	code := append(open, 0x31, 0xff, 0x85, 0xc0, 0x79, 4, 0xf7, 0xd8, 0x89, 0xc7, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05)
	binary.LittleEndian.PutUint32(code[6:], uint32(base+start+len(code)))
	code = append(append(code, path...), 0)
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	size := uint64(start + len(code))
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(base + start), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(4096),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v) // a buffer takes everything
	}
	b.Write(code)
	return b.Bytes()
}
