// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ask is a request to the kernel that the launcher's filter refuses too.
func ask(id, title, hooks, seen string, attack func(f *field) error) technique {
	return technique{
		id: id, title: title, hooks: hooks, loose: true, root: true, basic: true, launch: true, seen: seen + " | capability privilege", attack: attack,
		errors: []error{unix.ENOKEY}, // of keys: the one that was found may not be used
	}
}

// codeOfKernelTechniques put code into the kernel.
func codeOfKernelTechniques() []technique {
	return []technique{
		ask("bpf-map", "make a BPF map", "bpf", "bpf privilege", func(f *field) error {
			fd, err := createMap()
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		ask("bpf-program", "load a BPF program", "bpf", "bpf privilege", func(f *field) error {
			fd, err := loadProgram()
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		ask("perf", "watch the whole machine (perf_event_open)", "perf_event_open", "perf privilege", func(f *field) error {
			fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_CONTEXT_SWITCHES}, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		ask("module-load", "load a kernel module (init_module)", "capable, kernel_read_file", "capability privilege", func(f *field) error {
			image := make([]byte, 64)
			return unless(unix.InitModule(image, ""), unix.ENOEXEC)
		}),
		ask("module-file", "load a kernel module from a file (finit_module)", "capable, kernel_read_file", "capability privilege", func(f *field) error {
			fd, err := unix.Open(f.Work+"/true", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("before the attack: %v", err)
			}
			defer unix.Close(fd)
			return unless(unix.FinitModule(fd, "", 0), unix.ENOEXEC)
		}),
		ask("module-unload", "unload a kernel module", "capable", "capability privilege", func(f *field) error {
			return unless(unix.DeleteModule("no_such_module", 0), unix.ENOENT)
		}),
		{
			id: "module-request", title: "have the kernel load a module by itself", hooks: "kernel_module_request, capable", loose: true, root: true, launch: true,
			seen: "module privilege | capability privilege", errors: []error{unix.ENOENT},
			attack: func(f *field) error {
				return stream(func(fd int) error {
					return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "westwood")
				})
			},
			neighbour: func(f *field) error {
				return stream(func(fd int) error { return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic") })
			},
		},
		ask("kexec", "start another kernel", "capable", "capability privilege", func(f *field) error {
			return call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) // no segments: unload
		}),
	}
}

// machineTechniques change the machine, or learn what the kernel keeps.
func machineTechniques() []technique {
	return []technique{
		ask("clock", "set the clock", "settime", "clock privilege", func(f *field) error {
			ts := unix.NsecToTimespec(time.Now().UnixNano())
			return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
		}),
		ask("clock-adjust", "bend the clock (adjtimex)", "settime, capable", "clock privilege", func(f *field) error {
			tick := int64(10000)
			_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: tick})
			return err
		}),
		{
			id: "kernel-log", title: "read the kernel's log (syslog)", hooks: "syslog", loose: true, root: true, launch: true, seen: "kernel privilege | capability privilege",
			attack: func(f *field) error {
				_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 4096))
				return err
			},
		},
		ask("host-name", "rename the machine", "capable", "capability privilege", func(f *field) error { return unix.Sethostname([]byte("bailiff-vm")) }),
		ask("reboot", "have Ctrl-Alt-Del reboot the machine", "capable", "capability privilege", func(f *field) error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }),
		ask("swap", "swap to a file", "capable", "capability privilege", func(f *field) error {
			return unless(call(unix.SYS_SWAPON, text(f.Work+"/notes"), 0), unix.EINVAL)
		}),
		ask("accounting", "have the kernel write a file (acct)", "capable", "capability privilege", func(f *field) error {
			return errors.Join(fresh(f.own("account")), unix.Acct(f.own("account")), call(unix.SYS_ACCT, 0))
		}),
		{
			id: "ports", title: "reach the machine's ports (ioperm)", hooks: "capable, locked_down", loose: true, root: true, launch: true, seen: "capability privilege | kernel privilege",
			attack: func(f *field) error { return unix.Ioperm(0x80, 1, 1) },
		},
	}
}

// keyTechniques use keys of others, and the helper that finds them.
func keyTechniques() []technique {
	return []technique{
		ask("key-add", "add a key to the user's keyring", "key_alloc, key_permission", "key privilege", func(f *field) error {
			_, err := unix.AddKey("user", "escape", []byte("x"), unix.KEY_SPEC_USER_KEYRING)
			return err
		}),
		ask("key-read", "read a key of the user's keyring", "key_permission", "key privilege", func(f *field) error {
			b := make([]byte, 64)
			n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, f.Key, b, 0)
			if err != nil {
				return err
			}
			return holds(b[:n])
		}),
		ask("key-request", "have the kernel run a helper for a key (request_key)", "key_permission", "key privilege", func(f *field) error {
			_, err := unix.RequestKey("user", "escape-"+f.World, "x", unix.KEY_SPEC_PROCESS_KEYRING)
			return unless(err, unix.ENOKEY, unix.ENOENT)
		}),
	}
}

// loadProgram loads a program for sockets that returns 0.
func loadProgram() (int, error) {
	code := [2]uint64{0xb7, 0x95} // r0 = 0; exit
	licence := append([]byte("GPL"), 0)
	attr := struct {
		kind, count    uint32
		code, licence  uint64
		level, size    uint32
		log            uint64
		version, flags uint32
		rest           [64]byte
	}{kind: unix.BPF_PROG_TYPE_SOCKET_FILTER, count: 2, code: uint64(pointer(&code)), licence: addressOf(licence)}
	return value(unix.SYS_BPF, unix.BPF_PROG_LOAD, pointer(&attr), unsafe.Sizeof(attr))
}

// knobTechniques write what steers the kernel. What is written is what is there,
// or nothing: that the file can be written is enough.
func knobTechniques() []technique {
	var list []technique
	for _, k := range []struct{ id, title, path, write string }{
		{"ftrace", "switch all LSM programs off (ftrace_enabled)", "/proc/sys/kernel/ftrace_enabled", "1"},
		{"core-pattern", "the helper for core dumps (core_pattern)", "/proc/sys/kernel/core_pattern", "core"},
		{"modprobe-path", "the helper that loads modules", "/proc/sys/kernel/modprobe", "/sbin/modprobe"},
		{"sysrq", "the keys of emergency (sysrq-trigger)", "/proc/sysrq-trigger", "h"},
		{"sysctl", "any sysctl", "/proc/sys/kernel/panic_on_oops", ""},
		{"ptrace-scope", "who may trace (Yama)", "/proc/sys/kernel/yama/ptrace_scope", ""},
		{"drop-caches", "the kernel's caches", "/proc/sys/vm/drop_caches", "1"},
		{"binfmt-misc", "the helpers for programs (binfmt_misc)", "/proc/sys/fs/binfmt_misc/register", ""},
		{"release-agent", "the helper for empty cgroups (release_agent)", "%DIR%/cgroup1/release_agent", ""},
		{"uevent-helper", "the helper for devices (uevent_helper)", "/sys/kernel/uevent_helper", ""},
		{"tracing", "the kernel's tracing", "/sys/kernel/tracing/tracing_on", "1"},
		{"kprobes", "probes in the kernel", "/sys/kernel/tracing/kprobe_events", ""},
		{"debugfs", "the kernel's debugging files", "/sys/kernel/debug/sched/features", ""},
		{"module-parameters", "parameters of modules", "/sys/module/kernel/parameters/panic", "-1"},
		{"lsm", "the other security modules (securityfs)", "/sys/kernel/security/apparmor/.replace", ""},
		{"lockdown", "the kernel's lockdown", "/sys/kernel/security/lockdown", ""},
		{"kernel-memory", "the kernel's memory (/proc/kcore)", "/proc/kcore", "read"},
		{"mtrr", "the processor's memory types", "/proc/mtrr", ""},
	} {
		x := knob("knob-"+k.id, k.title, k.path, k.write)
		x.impossible = "the kernel is built without it"
		list = append(list, x)
	}
	return list
}

// knob opens a file for writing and writes; "read" only opens it for reading.
func knob(id, title, path, write string) technique {
	return technique{
		id: id, title: title, hooks: "file_open", loose: true, root: true, seen: "open builtin " + path,
		attack: func(f *field) error {
			switch write {
			case "read":
				return peek(f.expand(path))
			case "":
				return poke(f.expand(path))
			}
			return scrawl(f.expand(path), write)
		},
		neighbour: func(f *field) error { return os.WriteFile(f.own(id), []byte(write), 0o666) },
	}
}
