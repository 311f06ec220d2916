// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
)

// The server answers a request line and hangs up, or swallows what follows the
// line that asks for it.
const (
	getLine  = "GET / HTTP/1.0\r\n\r\n"
	sinkLine = "PUT / HTTP/1.0\r\n\r\n"
	response = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"

	chunk     = 64 << 10 // bytes sent at once
	bulkBytes = 16 << 20 // bytes sent over one connection
)

// serve answers connections until the listener is closed.
func serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			line := make([]byte, len(getLine))
			if _, err := io.ReadFull(c, line); err != nil {
				return
			}
			if bytes.Equal(line, []byte(sinkLine)) {
				swallow(c)
			}
			io.WriteString(c, response)
		}()
	}
}

// swallow reads to the end: the client has shut its side down by then.
func swallow(c io.Reader) {
	buffer := make([]byte, chunk)
	for {
		if _, err := c.Read(buffer); err != nil {
			return
		}
	}
}

// proxy is an HTTP CONNECT proxy that lets everything through: no policy, no
// log, nothing that a real one would add.
func proxy(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go tunnel(c)
	}
}

func tunnel(client net.Conn) {
	defer client.Close()
	in := bufio.NewReader(client)
	asked, err := http.ReadRequest(in)
	if err != nil || asked.Method != http.MethodConnect {
		return
	}
	server, err := net.DialTimeout("tcp", asked.Host, 10*time.Second)
	if err != nil {
		io.WriteString(client, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer server.Close()
	io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	relay(client, server, in)
}

// relay copies both ways until the server has hung up.
func relay(client, server net.Conn, in *bufio.Reader) {
	go func() {
		// What came with the request first; then the kernel may splice.
		if n := in.Buffered(); n > 0 {
			io.CopyN(server, in, int64(n))
		}
		io.Copy(server, client)
		if tcp, ok := server.(*net.TCPConn); ok {
			tcp.CloseWrite()
		}
	}()
	io.Copy(client, server)
}

// dial connects with plain system calls: through the proxy, if there is one.
func dial(j *job) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	port := j.Port
	if j.Proxy != 0 {
		port = j.Proxy
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: j.Address, Port: port}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	if j.Proxy == 0 {
		return fd, nil
	}
	host := fmt.Sprintf("%s:%d", net.IP(j.Address[:]), j.Port)
	buffer := make([]byte, 256)
	n := 0
	if _, err = unix.Write(fd, fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)); err == nil {
		n, err = unix.Read(fd, buffer)
	}
	if err == nil && !bytes.HasPrefix(buffer[:n], []byte("HTTP/1.1 200 ")) {
		err = fmt.Errorf("proxy: %q", buffer[:n])
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// finish reads the response to its end.
func finish(fd int) error {
	buffer := make([]byte, 256)
	total := 0
	for {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			break
		}
		total += n
	}
	if total != len(response) {
		return errors.New("read: the response is not whole")
	}
	return unix.Close(fd)
}

// request is a connection, a request, its response and the end.
func request(j *job) error {
	fd, err := dial(j)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(getLine)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return finish(fd)
}

// send sends bulkBytes over a connection of its own; the last has been read when
// it returns.
func send(j *job) error {
	fd, err := dial(j)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, []byte(sinkLine)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	data := make([]byte, chunk)
	for sent := 0; sent < bulkBytes; {
		n, err := unix.Write(fd, data)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		sent += n
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return finish(fd)
}
