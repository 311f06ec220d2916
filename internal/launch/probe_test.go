// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// probe is what the re-executed test binary does under the filter, or, with
// the word free, without it.
func probe(args []string) int {
	if args[0] != "free" {
		if err := errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), filterCalls()); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	switch args[1] {
	case "calls":
		for _, c := range refusedCalls() {
			fmt.Println(c.name, int(c.do()))
		}
	case "capabilities":
		set, err := permitted()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Printf("%x\n", set)
	case "neighbours":
		if err := neighbours(); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

// rawCall is one system call, with arguments that no kernel accepts where the
// rule doesn't look at them, so that it does nothing if it gets through.
type rawCall struct {
	name  string
	call  uintptr
	args  [3]uintptr
	errno syscall.Errno // what the filter must answer
}

func (c rawCall) do() syscall.Errno {
	_, _, errno := syscall.RawSyscall6(c.call, c.args[0], c.args[1], c.args[2], bad, bad, bad)
	return errno
}

const bad = ^uintptr(0)

func refusedCalls() []rawCall {
	nothing := [3]uintptr{bad, bad, bad}
	calls := []rawCall{}
	for _, c := range []struct {
		name string
		call uintptr
	}{
		{"mount", unix.SYS_MOUNT}, {"umount2", unix.SYS_UMOUNT2}, {"pivot_root", unix.SYS_PIVOT_ROOT}, {"chroot", unix.SYS_CHROOT},
		{"move_mount", unix.SYS_MOVE_MOUNT}, {"open_tree", unix.SYS_OPEN_TREE}, {"fsopen", unix.SYS_FSOPEN}, {"fsmount", unix.SYS_FSMOUNT},
		{"mount_setattr", unix.SYS_MOUNT_SETATTR}, {"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT}, {"setns", unix.SYS_SETNS},
		{"bpf", unix.SYS_BPF}, {"perf_event_open", unix.SYS_PERF_EVENT_OPEN}, {"userfaultfd", unix.SYS_USERFAULTFD},
		{"init_module", unix.SYS_INIT_MODULE}, {"finit_module", unix.SYS_FINIT_MODULE}, {"delete_module", unix.SYS_DELETE_MODULE},
		{"kexec_load", unix.SYS_KEXEC_LOAD}, {"reboot", unix.SYS_REBOOT}, {"fanotify_init", unix.SYS_FANOTIFY_INIT}, {"clock_settime", unix.SYS_CLOCK_SETTIME},
		{"unshare all", unix.SYS_UNSHARE}, {"clone into namespaces", unix.SYS_CLONE},
	} {
		calls = append(calls, rawCall{c.name, c.call, nothing, unix.EPERM})
	}
	for _, c := range []struct {
		name string
		call uintptr
	}{
		{"io_uring_setup", unix.SYS_IO_URING_SETUP}, {"io_uring_enter", unix.SYS_IO_URING_ENTER}, {"io_uring_register", unix.SYS_IO_URING_REGISTER},
		{"clone3", unix.SYS_CLONE3}, {"keyctl", unix.SYS_KEYCTL}, {"add_key", unix.SYS_ADD_KEY}, {"request_key", unix.SYS_REQUEST_KEY},
	} {
		calls = append(calls, rawCall{c.name, c.call, nothing, unix.ENOSYS})
	}
	return append(calls, refusedSockets()...)
}

func refusedSockets() []rawCall {
	socket := func(name string, family, kind, protocol uintptr, errno syscall.Errno) rawCall {
		return rawCall{name, unix.SYS_SOCKET, [3]uintptr{family, kind, protocol}, errno}
	}
	const high = 1 << 32 // the kernel cuts it off, and so must the filter
	return []rawCall{
		socket("packet", unix.AF_PACKET, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT),
		socket("vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0, unix.EAFNOSUPPORT),
		socket("xdp", unix.AF_XDP, unix.SOCK_RAW, 0, unix.EAFNOSUPPORT),
		socket("alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0, unix.EAFNOSUPPORT),
		socket("packet, high bits", high|unix.AF_PACKET, high|unix.SOCK_RAW, 0, unix.EAFNOSUPPORT),
		socket("raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP, unix.EPERM),
		socket("raw with flags", unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP, unix.EPERM),
		socket("old packet", unix.AF_INET, sockPacket, 0, unix.EPERM),
		socket("mptcp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, unix.EPROTONOSUPPORT),
		socket("mptcp, high bits", high|unix.AF_INET6, unix.SOCK_STREAM, high|unix.IPPROTO_MPTCP, unix.EPROTONOSUPPORT),
		socket("sctp", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, unix.EPROTONOSUPPORT),
		socket("udplite", unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, unix.EPROTONOSUPPORT),
		socket("ping", unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, unix.EPROTONOSUPPORT),
		socket("seqpacket", unix.AF_INET, unix.SOCK_SEQPACKET, 0, unix.ESOCKTNOSUPPORT),
		socket("netfilter", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, unix.EPROTONOSUPPORT),
		{"socketpair", unix.SYS_SOCKETPAIR, [3]uintptr{unix.AF_TIPC, unix.SOCK_STREAM, 0}, unix.EAFNOSUPPORT},
		{"TIOCSTI", unix.SYS_IOCTL, [3]uintptr{bad, unix.TIOCSTI, 0}, unix.EPERM},
		{"TIOCSTI, high bits", unix.SYS_IOCTL, [3]uintptr{bad, high | unix.TIOCSTI, 0}, unix.EPERM},
		{"TIOCLINUX", unix.SYS_IOCTL, [3]uintptr{bad, unix.TIOCLINUX, 0}, unix.EPERM},
		{"IPV6_RTHDR", unix.SYS_SETSOCKOPT, [3]uintptr{bad, unix.IPPROTO_IPV6, unix.IPV6_RTHDR}, unix.EPERM},
		{"IP_OPTIONS", unix.SYS_SETSOCKOPT, [3]uintptr{bad, unix.IPPROTO_IP, unix.IP_OPTIONS}, unix.EPERM},
		{"unshare user", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER, 0, 0}, unix.EPERM},
		{"unshare time", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWTIME, 0, 0}, unix.EPERM},
	}
}

// neighbours are the calls next to the refused ones that programs live on.
func neighbours() error {
	dir, err := os.MkdirTemp("", "launch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var wait sync.WaitGroup
	errs := make(chan error, 16)
	for range 8 { // threads that start processes
		wait.Go(func() { errs <- exec.Command("true").Run() })
	}
	wait.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	_, interfaces := net.Interfaces() // over netlink
	pair, pairs := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	one := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	for _, l := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"}, {"tcp4", "127.0.0.1:0"}, {"unix", filepath.Join(dir, "s")},
	} {
		err = errors.Join(err, roundTrip(l.network, l.address))
	}
	udp, udpErr := net.ListenPacket("udp", "127.0.0.1:0")
	if udpErr == nil {
		udp.Close()
	}
	return errors.Join(err, interfaces, pairs, one, udpErr, unix.Unshare(unix.CLONE_FILES))
}

func roundTrip(network, address string) error {
	l, err := net.Listen(network, address) // tries MPTCP first
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		return err
	}
	return c.Close()
}
