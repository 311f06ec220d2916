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
		{"lookup_dcookie", unix.SYS_LOOKUP_DCOOKIE}, {"pidfd_getfd", unix.SYS_PIDFD_GETFD}, {"syslog", unix.SYS_SYSLOG}, {"vhangup", unix.SYS_VHANGUP},
	} {
		calls = append(calls, rawCall{c.name, c.call, nothing, unix.EPERM})
	}
	for _, c := range []struct {
		name string
		call uintptr
	}{
		{"io_uring_setup", unix.SYS_IO_URING_SETUP}, {"io_uring_enter", unix.SYS_IO_URING_ENTER}, {"io_uring_register", unix.SYS_IO_URING_REGISTER},
		{"clone3", unix.SYS_CLONE3}, {"keyctl", unix.SYS_KEYCTL}, {"add_key", unix.SYS_ADD_KEY}, {"request_key", unix.SYS_REQUEST_KEY},
		{"remap_file_pages", unix.SYS_REMAP_FILE_PAGES}, {"file_setattr", unix.SYS_FILE_SETATTR},
	} {
		calls = append(calls, rawCall{c.name, c.call, nothing, unix.ENOSYS})
	}
	return append(append(calls, refusedSockets()...), refusedRequests()...)
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
	}
}

// refusedRequests are options of sockets, ioctls and the calls that are refused
// with some flags.
func refusedRequests() (calls []rawCall) {
	const high = 1 << 32
	for _, c := range []struct {
		name        string
		level, what uintptr
	}{
		{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK}, {"SO_BINDTODEVICE", unix.SOL_SOCKET, unix.SO_BINDTODEVICE},
		{"SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX}, {"SO_ATTACH_BPF", unix.SOL_SOCKET, unix.SO_ATTACH_BPF},
		{"SO_ATTACH_REUSEPORT_EBPF", unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF},
		{"IP_OPTIONS", unix.IPPROTO_IP, unix.IP_OPTIONS}, {"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT},
		{"IP_UNICAST_IF", unix.IPPROTO_IP, unix.IP_UNICAST_IF}, {"IP_XFRM_POLICY", unix.IPPROTO_IP, unix.IP_XFRM_POLICY},
		{"IPV6_RTHDR", unix.IPPROTO_IPV6, unix.IPV6_RTHDR}, {"IPV6_HOPOPTS", unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS},
		{"IPV6_DSTOPTS", unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS}, {"IPV6_TRANSPARENT", unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT},
		{"IPV6_UNICAST_IF", unix.IPPROTO_IPV6, ipv6UnicastIf}, {"IPV6_XFRM_POLICY", unix.IPPROTO_IPV6, unix.IPV6_XFRM_POLICY},
		{"TCP_REPAIR", unix.IPPROTO_TCP, unix.TCP_REPAIR}, {"UDP_ENCAP", unix.IPPROTO_UDP, unix.UDP_ENCAP},
		{"UDP_ENCAP, high bits", high | unix.IPPROTO_UDP, high | unix.UDP_ENCAP},
	} {
		calls = append(calls, rawCall{c.name, unix.SYS_SETSOCKOPT, [3]uintptr{bad, c.level, c.what}, unix.EPERM})
	}
	for _, c := range []struct {
		name   string
		number uintptr
	}{
		{"TIOCSTI", unix.TIOCSTI}, {"TIOCSTI, high bits", high | unix.TIOCSTI}, {"TIOCLINUX", unix.TIOCLINUX}, {"TIOCSETD", unix.TIOCSETD},
		{"TIOCCONS", unix.TIOCCONS}, {"TIOCVHANGUP", unix.TIOCVHANGUP}, {"FIFREEZE", freeze}, {"FITHAW", thaw},
	} {
		calls = append(calls, rawCall{c.name, unix.SYS_IOCTL, [3]uintptr{bad, c.number, 0}, unix.EPERM})
	}
	return append(calls,
		rawCall{"unshare user", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER, 0, 0}, unix.EPERM},
		rawCall{"unshare time", unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWTIME, 0, 0}, unix.EPERM},
		rawCall{"personality", unix.SYS_PERSONALITY, [3]uintptr{readImpliesExec, 0, 0}, unix.EPERM},
		rawCall{"personality, with others", unix.SYS_PERSONALITY, [3]uintptr{readImpliesExec | 0x0040000, 0, 0}, unix.EPERM})
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
	return errors.Join(err, interfaces, pairs, one, udpErr, unix.Unshare(unix.CLONE_FILES), options(), personalities())
}

// options are those next to the refused ones, which are numbered alike in other
// levels.
func options() error {
	udp, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(udp)
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(tcp)
	_, err = unix.IoctlGetInt(udp, unix.TIOCINQ)
	for _, o := range []struct{ fd, level, name int }{
		{udp, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, {udp, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, {udp, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS},
		{tcp, unix.IPPROTO_IP, unix.IP_TOS}, {tcp, unix.IPPROTO_IP, unix.IP_FREEBIND}, {tcp, unix.IPPROTO_TCP, unix.TCP_NODELAY},
		{tcp, unix.SOL_SOCKET, unix.SO_REUSEADDR}, {tcp, unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {udp, unix.SOL_SOCKET, unix.SO_BROADCAST},
	} {
		if e := unix.SetsockoptInt(o.fd, o.level, o.name, 1); e != nil {
			err = errors.Join(err, fmt.Errorf("option %d of level %d: %w", o.name, o.level, e))
		}
	}
	return err
}

// personalities: asking, and what debuggers and sanitizers ask for.
func personalities() error {
	const noRandomize = 0x0040000
	old, _, errno := syscall.RawSyscall(unix.SYS_PERSONALITY, askPersonality, 0, 0)
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_PERSONALITY, old|noRandomize, 0, 0)
	}
	if errno != 0 {
		return fmt.Errorf("personality: %w", errno)
	}
	return nil
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
