// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inherited lists what this process was started with beside standard input, output
// and error: what it opened itself is close-on-exec. The words of a descriptor are
// its number, what it is, and what is read from it when it is open for that only;
// what is open for writing only is written its number.
func inherited() int {
	for n := 3; n <= highestKept; n++ {
		if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue
		}
		link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n))
		text := ""
		switch mode, _ := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0); mode & unix.O_ACCMODE {
		case unix.O_RDONLY:
			buffer := make([]byte, 64)
			count, _ := unix.Read(n, buffer)
			text = string(buffer[:max(count, 0)])
		case unix.O_WRONLY:
			unix.Write(n, []byte(itoa(n)))
		}
		fmt.Println(n, link, text)
	}
	return 0
}

// withInherited gives a command descriptors under these numbers. They are closed when
// the test ends.
func withInherited(t *testing.T, cmd *exec.Cmd, files map[int]*os.File) *exec.Cmd {
	t.Helper()
	for n, file := range files {
		for len(cmd.ExtraFiles) <= n-3 {
			cmd.ExtraFiles = append(cmd.ExtraFiles, nil)
		}
		cmd.ExtraFiles[n-3] = file
	}
	return cmd
}

// lister is a command in a session that lists what it was started with.
func (d *daemon) lister(t *testing.T, keep ...int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return d.parent(t, Options{Keep: keep, Command: []string{self, inheritedMode}})
}

func textFile(t *testing.T, text string) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file "+text)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return opened(t, name)
}

func opened(t *testing.T, name string) *os.File {
	t.Helper()
	file, err := os.Open(name)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIP-REASON: descriptor: " + err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func pipe(t *testing.T) (read, write *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close(); write.Close() })
	return read, write
}

// TestKept: files and pipes under the lowest numbers, which the stub's own would
// have, in the middle and far above; everything beside them is closed.
func TestKept(t *testing.T) {
	d := newDaemon(t)
	read, write := pipe(t)
	files := map[int]*os.File{3: textFile(t, "three"), 4: write, 7: textFile(t, "seven"), 1000: textFile(t, "thousand")}
	beside := map[int]*os.File{5: textFile(t, "x"), 6: textFile(t, "x"), 8: textFile(t, "x"), 999: textFile(t, "x"), 1001: textFile(t, "x")}
	for n, file := range files {
		beside[n] = file
	}
	r := finish(t, withInherited(t, d.lister(t, 1000, 3, 7, 4), beside))
	var want string
	var said []string
	for _, x := range []struct {
		n    int
		text string
	}{{3, "three"}, {4, ""}, {7, "seven"}, {1000, "thousand"}} {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", files[x.n].Fd()))
		if err != nil {
			t.Fatal(err)
		}
		want += fmt.Sprintln(x.n, link, x.text)
		said = append(said, fmt.Sprintf("%d %q", x.n, link))
	}
	if r.stdout != want || r.code != 0 {
		t.Errorf("got %+v\nwant %s", r, want)
	}
	if kept := d.last(t).request.GetKept(); !slices.Equal(kept, said) {
		t.Errorf("told the daemon %q, want %q", kept, said)
	}
	write.Close()
	if text, err := io.ReadAll(read); string(text) != "4" {
		t.Errorf("the pipe brought %q: %v", text, err)
	}
}

// TestKeptAmongTheRuntimes: whichever numbers are kept, and so whichever both
// runtimes, the connection and the pipes between the two have, each kept one is what
// it was.
func TestKeptAmongTheRuntimes(t *testing.T) {
	d := newDaemon(t)
	files := map[int]*os.File{}
	for n := 3; n <= 18; n++ {
		files[n] = textFile(t, itoa(n))
	}
	for _, keep := range [][]int{
		{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18},
		{4, 6, 8, 10, 12, 14, 16, 18}, {3, 5, 7, 9, 11, 13, 15, 17}, {5}, {6, 7}, {8, 9, 10}, {11, 12}, {13, 14, 15}, {18},
	} {
		given := map[int]*os.File{} // these alone: the other numbers are free for whoever opens
		want := ""
		for _, n := range keep {
			given[n] = files[n]
			if _, err := files[n].Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			want += fmt.Sprintln(n, files[n].Name(), n)
		}
		if r := finish(t, withInherited(t, d.lister(t, keep...), given)); r.stdout != want || r.code != 0 {
			t.Errorf("%d: got %+v\nwant %s", keep, r, want)
		}
	}
}

// TestKeptPipeEnds: what reads from a kept pipe sees its end when the command closes
// it, though `bailiff run` goes on.
func TestKeptPipeEnds(t *testing.T) {
	read, write := pipe(t)
	goOn, end := pipe(t)
	cmd := newDaemon(t).parent(t, Options{Keep: []int{3}, Command: []string{"/bin/sh", "-c", "echo done >&3; exec 3>&-; read x"}})
	withInherited(t, cmd, map[int]*os.File{3: write})
	cmd.Stdin = goOn
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if err := read.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(read) // else waits for the command's end, which waits for us
	end.Close()
	if wait := cmd.Wait(); string(text) != "done\n" || err != nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("read %q, %v; the command: %v", text, err, wait)
	}
}

// TestNotOpenIsNotTheRuntimes: a number that nobody opened for it is not open, though
// the process may have a descriptor of its own there.
func TestNotOpenIsNotTheRuntimes(t *testing.T) {
	d := newDaemon(t)
	for n := 3; n < 10; n++ {
		r := finish(t, d.lister(t, n))
		if want := fmt.Sprintf("bailiff: --keep-fd %d: it is not open here", n); r.code != ExitFailed || !strings.HasPrefix(r.stderr, want) {
			t.Errorf("%d: got %+v", n, r)
		}
	}
}

func TestKeptNearTheLimit(t *testing.T) {
	d := newDaemon(t)
	for limit, code := range map[int]int{57: ExitFailed, 59: 0} {
		cmd := withInherited(t, d.lister(t, 50), map[int]*os.File{50: textFile(t, "fifty")})
		cmd.Args = append([]string{"sh", "-c", fmt.Sprintf("ulimit -n %d; exec \"$@\"", limit), "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		r := finish(t, cmd)
		if r.code != code || (code != 0) != strings.Contains(r.stderr, "too near the limit of 57 open descriptors") {
			t.Errorf("limit %d: got %+v", limit, r)
		}
	}
}

func TestKeptIsQuoted(t *testing.T) {
	k := kept{Number: 7, Link: "/a\n\x1b[2J\xff\", 8 \"/b"}
	if got, want := k.String(), `7 "/a\n\x1b[2J\xff\", 8 \"/b"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
