// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// serveInternet answers on a TCP and a UDP port of all addresses, and echoes.
func serveInternet(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "[::]:0")
		must(t, err)
		port := l.Addr().(*net.TCPAddr).Port
		p, err := net.ListenPacket("udp", fmt.Sprintf("[::]:%d", port))
		if err != nil {
			l.Close()
			continue
		}
		t.Cleanup(func() { l.Close(); p.Close() })
		go echoStreams(l)
		go echoDatagrams(p)
		return port
	}
	t.Fatal("no port is free for both TCP and UDP")
	return 0
}

func echoStreams(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b := make([]byte, 512)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				c.Write(b[:n])
			}
		}()
	}
}

func echoDatagrams(p net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		p.WriteTo(b[:n], from)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// serveUnix listens on the sockets of the field: "allowed" and "forbidden" in
// its directory and as abstract names, streams and, with -dgram, datagrams. Who
// asks the allowed one for a descriptor gets it: see gifts.
func serveUnix(t *testing.T, f *field) {
	t.Helper()
	gifts := newGifts(t, f)
	for _, name := range []string{f.Dir + "/allowed", f.Dir + "/forbidden", "@allowed-" + f.Work, "@forbidden-" + f.Work,
		"/run/dbus/system_bus_socket", "/run/systemd/private"} {
		if name[0] == '/' {
			must(t, os.MkdirAll(filepath.Dir(name), 0o777))
		}
		l, err := net.Listen("unix", name)
		must(t, err)
		p, err := net.ListenPacket("unixgram", name+"-dgram")
		must(t, err)
		t.Cleanup(func() { l.Close(); p.Close(); os.Remove(name + "-dgram") })
		if name[0] == '/' {
			must(t, os.Chmod(name, 0o777))
			must(t, os.Chmod(name+"-dgram", 0o777))
		}
		if name == f.Dir+"/allowed" {
			go gifts.serve(l)
		} else {
			go echoStreams(l)
		}
	}
}

// gifts are descriptors that an accomplice outside hands to whoever asks.
type gifts map[string]int

func newGifts(t *testing.T, f *field) gifts {
	t.Helper()
	open := func(path string, flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		must(t, err)
		return fd
	}
	connected, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.Other))
	must(t, err)
	t.Cleanup(func() { connected.Close() })
	socket, err := connected.(*net.TCPConn).File()
	must(t, err)
	t.Cleanup(func() { socket.Close() })
	detached, err := unix.OpenTree(unix.AT_FDCWD, f.Dir+"/secret", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	fresh, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	ring, err := newRing(0)
	must(t, err)
	polled, err := newRing(ringSQPoll)
	must(t, err)
	f.RingSQ, f.RingCQ = polled.sq, polled.cq
	var master int
	master, f.TTY = terminal(t)
	file := open(f.Dir+"/secret/f", unix.O_RDWR)
	must(t, ring.register(file))
	must(t, polled.register(file))
	g := gifts{
		"file": file, "directory": open(f.Dir+"/secret", unix.O_RDONLY|unix.O_DIRECTORY),
		"near": open(f.Work+"/notes", unix.O_RDONLY), "connected": int(socket.Fd()), "socket": fresh, "detached": detached,
		"lazy": lazyMount(t, f), "listener": pendingListener(t), "unix": connectedUnix(t, f), "ring": ring.fd, "polled": polled.fd, "map": newMap(t),
		"packet": packetSocket(t), "terminal": master,
	}
	for _, name := range inheritedNames() {
		f.extra = append(f.extra, os.NewFile(uintptr(g[name]), name))
	}
	return g
}

// pendingListener returns a listening socket with connections that nobody has
// accepted yet.
func pendingListener(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	for range 32 {
		c, err := net.Dial("tcp", l.Addr().String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
	}
	file, err := l.(*net.TCPListener).File()
	must(t, err)
	t.Cleanup(func() { file.Close() })
	return int(file.Fd())
}

// connectedUnix returns a socket that is connected where no session may connect.
func connectedUnix(t *testing.T, f *field) int {
	t.Helper()
	l, err := net.Listen("unix", f.Dir+"/forbidden-too")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go echoStreams(l)
	c, err := net.Dial("unix", f.Dir+"/forbidden-too")
	must(t, err)
	t.Cleanup(func() { c.Close() })
	file, err := c.(*net.UnixConn).File()
	must(t, err)
	t.Cleanup(func() { file.Close() })
	return int(file.Fd())
}

// lazyMount returns a directory of a bind mount that was taken away.
func lazyMount(t *testing.T, f *field) int {
	t.Helper()
	at := f.Work + "/mnt"
	must(t, unix.Mount(f.Dir+"/secret", at, "", unix.MS_BIND, ""))
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Unmount(at, unix.MNT_DETACH))
	return fd
}

func (g gifts) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			name, err := bufio.NewReader(c).ReadString('\n')
			if fd, ok := g[strings.TrimSpace(name)]; err == nil && ok {
				c.(*net.UnixConn).WriteMsgUnix([]byte("here"), unix.UnixRights(fd), nil)
			}
		}()
	}
}

// disk mounts a small ext4 file system with a shared file in it.
func (f *field) disk(t *testing.T) {
	t.Helper()
	f.Disk = kerneltest.Ext4Dir(t)
	script := `set -e; umask 0; cd "$0"; mkdir shared secret work; echo data > shared/data; echo data > work/data; printf '%s' "$1" > secret/f; chmod -R a+rwX . ; chmod a+rx $(dirname "$PWD")`
	if out, err := exec.Command("/bin/bash", "-c", script, f.Disk, secret).CombinedOutput(); err != nil {
		t.Fatalf("fill the disk: %v: %s", err, out)
	}
	// The directory of a test is its owner's alone.
	for dir := f.Disk; dir != "/tmp"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o777))
	}
}

// terminal makes a pseudoterminal that everybody may open; the master is the
// test's.
func terminal(t *testing.T) (master int, path string) {
	t.Helper()
	master, path, err := kerneltest.NewTerminal()
	must(t, err)
	t.Cleanup(func() { unix.Close(master) })
	must(t, os.Chmod(path, 0o666))
	return master, path
}

// packetSocket returns one that sees and sends whole frames.
func packetSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
