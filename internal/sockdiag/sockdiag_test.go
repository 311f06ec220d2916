// SPDX-License-Identifier: Apache-2.0

package sockdiag

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// TestMain makes the test binary a program that connects to an address, says so,
// and then how a read of that connection ended.
func TestMain(m *testing.M) {
	network, address, ok := strings.Cut(os.Getenv("SOCKDIAG_CONNECT"), " ")
	if !ok {
		os.Exit(m.Run())
	}
	c, err := net.Dial(network, address)
	fmt.Println("connected:", err)
	_, err = c.Read(make([]byte, 1))
	fmt.Println("read:", err)
}

// client is a process in a cgroup that waits for something to read.
type client struct {
	out *bufio.Reader
	pid int
}

func connect(t *testing.T, cgroup, network, address string) client {
	t.Helper()
	fd, err := unix.Open(cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "SOCKDIAG_CONNECT="+network+" "+address)
	c.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	x := client{bufio.NewReader(out), c.Process.Pid}
	x.says(t, "connected: <nil>")
	return x
}

func (c client) says(t *testing.T, want string) {
	t.Helper()
	if line, err := c.out.ReadString('\n'); err != nil || !strings.Contains(line, want) {
		t.Fatalf("the client says %q (%v), not %q", line, err, want)
	}
}

func cgroupID(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// listen accepts one connection, or takes datagrams, and returns its address.
func listen(t *testing.T, network, address string) (at string, reset <-chan error) {
	t.Helper()
	errs := make(chan error, 1)
	if strings.HasPrefix(network, "udp") {
		l, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.LocalAddr().String(), errs
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		errs <- err
	}()
	return l.Addr().String(), errs
}

func TestDestroy(t *testing.T) {
	kerneltest.RequireRoot(t)
	for _, x := range []struct{ name, network, listen, connect string }{
		{"tcp4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp6", "tcp6", "[::1]:0", "::1"},
		{"tcp mapped", "tcp4", "127.0.0.1:0", "::ffff:127.0.0.1"},
		{"udp4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"udp6", "udp6", "[::1]:0", "::1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			group := kerneltest.Cgroup(t)
			other := kerneltest.Cgroup(t)
			at, reset := listen(t, x.network, x.listen)
			peer := netip.MustParseAddrPort(at)
			network := x.network[:3]
			mine := connect(t, group, network, net.JoinHostPort(x.connect, fmt.Sprint(peer.Port())))
			sockets, err := List(cgroupID(t, group))
			if err != nil {
				t.Fatal(err)
			}
			if len(sockets) != 1 || sockets[0].Peer != peer || sockets[0].Local.Port() == 0 {
				t.Fatalf("%+v, want one to %s", sockets, peer)
			}
			if none, err := List(cgroupID(t, other)); err != nil || len(none) != 0 {
				t.Fatalf("another cgroup has %v, %v", none, err)
			}
			if err := sockets[0].Destroy(); err != nil {
				t.Fatal(err)
			}
			mine.says(t, "software caused connection abort")
			if network == "tcp" {
				select {
				case err := <-reset:
					if err == nil || !strings.Contains(err.Error(), "reset") {
						t.Errorf("the peer sees %v", err)
					}
				case <-time.After(5 * time.Second):
					t.Error("the peer hears of nothing")
				}
			}
			if err := sockets[0].Destroy(); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

// The kernel hands out ports again at once: a cookie tells the sockets apart.
func TestDestroyMindsTheCookie(t *testing.T) {
	kerneltest.RequireRoot(t)
	group := kerneltest.Cgroup(t)
	at, _ := listen(t, "tcp4", "127.0.0.1:0")
	mine := connect(t, group, "tcp", at)
	sockets, err := List(cgroupID(t, group))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("%v, %v", sockets, err)
	}
	stale := sockets[0]
	stale.id[sizeofID-1]++
	if err := stale.Destroy(); err != nil && !strings.Contains(err.Error(), "stale") {
		t.Errorf("a stale socket: %v", err)
	}
	if now, err := List(cgroupID(t, group)); err != nil || !slices.Equal(now, sockets) {
		t.Errorf("now %v, %v", now, err)
	}
	if err := sockets[0].Destroy(); err != nil {
		t.Fatal(err)
	}
	mine.says(t, "software caused connection abort")
}

func TestNamespaces(t *testing.T) {
	kerneltest.NetNS(t)
	group := kerneltest.Cgroup(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // of this namespace: the thread is locked
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first := connect(t, group, "tcp", l.Addr().String())
	second := connect(t, group, "tcp", l.Addr().String())
	home, err := os.Readlink("/proc/self/ns/net") // of the main thread, which must not stay elsewhere
	if err != nil {
		t.Fatal(err)
	}
	namespaces, err := Namespaces([]int{first.pid, second.pid, os.Getppid(), 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if len(namespaces) != 2 {
		t.Fatalf("%d namespaces, want that of the clients and that of what started the test", len(namespaces))
	}
	for _, ns := range namespaces {
		defer ns.Close()
	}
	id := cgroupID(t, group)
	for i, want := range []int{2, 0} {
		err := In(namespaces[i], func() error {
			sockets, err := List(id)
			if len(sockets) != want {
				t.Errorf("namespace %d: %v, want %d", i, sockets, want)
			}
			for _, s := range sockets {
				if err := s.Destroy(); err != nil {
					return err
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	first.says(t, "software caused connection abort")
	second.says(t, "software caused connection abort")
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
		t.Errorf("this process is in %s, %v", now, err)
	}
}
