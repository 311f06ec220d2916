// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// place is a directory that holds a tree, on a file system of its own kind.
type place struct {
	t     *testing.T
	name  string
	dir   string // the tree is in dir/t
	tree  *node
	views []*view
}

// view is one way in which confined processes see a place's tree.
type view struct {
	name    string
	tree    *node
	from    string   // the tree's directory, as the process says it
	judged  []string // as the host has it, seen through the same mount
	hidden  []string // the file system's own route, where that mount hides it
	own     []string // the file system's own route
	bound   []string // where Unix sockets in the tree were bound
	outside bool     // the process has a root that does not lead to the host's
	backed  bool     // the kernel maps other files than the ones that were opened
	session *confined
}

// makePlaces makes the trees and the sessions that reach for them.
func makePlaces(t *testing.T, k *kernel, g generator) []*place {
	t.Helper()
	ordinary := k.start(t, rules{})
	var all []*place
	for _, kind := range []struct {
		name string
		make func(testing.TB) string
	}{
		{"tmpfs", kerneltest.TmpfsDir}, {"ext4", kerneltest.Ext4Dir}, {"overlay", kerneltest.TmpfsDir}, {"root", rootDir},
	} {
		p := &place{t: t, name: kind.name, dir: kind.make(t), tree: newNode(directory)}
		if err := os.MkdirAll(p.dir+"/t", 0o755); err != nil {
			t.Fatal(err)
		}
		if p.name == "overlay" {
			p.garden(g, 0)
			p.mergeOver()
		}
		p.garden(g, 2)
		p.see(&view{name: "host", from: p.dir + "/t", judged: components(p.dir + "/t"), session: ordinary})
		all = append(all, p)
	}
	for _, p := range all[:2] {
		touch(p.dir + "/v/x")
		bind(t, p.dir+"/t", p.dir+"/v")
		p.see(&view{name: "bind mount", from: p.dir + "/v", judged: components(p.dir + "/v"), hidden: components(p.dir + "/t"), session: ordinary})
	}
	furnish(t, all[0].dir)
	furnish(t, all[2].dir)
	if err := k.SetHomes(mounts(t)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*place{all[0], all[2]} {
		inside := k.chrooted(t, p.dir)
		p.see(&view{name: "chroot", from: "/t", judged: components(p.dir + "/t"), session: inside})
	}
	all[0].see(&view{
		name: "bind mount in chroot", from: "/v", judged: components(all[0].dir + "/v"), hidden: components(all[0].dir + "/t"),
		session: all[0].views[2].session,
	})
	all[2].see(&view{name: "runc", from: "/t", judged: components("/t"), outside: true, session: k.contained(t, all[2].dir)})
	return all
}

func (p *place) see(v *view) {
	v.tree, v.own, v.bound, v.backed = p.tree, components(p.dir+"/t"), components(p.dir+"/t"), p.backed()
	p.views = append(p.views, v)
}

// backed tells whether a mapping of a file is one of another file, under an
// overlay, which the mapping's own hooks cannot tell the overlay's path of.
func (p *place) backed() bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(p.dir, &fs); err != nil {
		p.t.Fatal(err)
	}
	return fs.Type == unix.OVERLAYFS_SUPER_MAGIC && !release(p.t, 6, 6)
}

// release tells whether the kernel is of a series, or of an earlier one.
func release(t *testing.T, major, minor int) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var x, y int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &x, &y); err != nil {
		t.Fatal(err)
	}
	return x < major || x == major && y <= minor
}

// bases are the directories that policies about a place speak of.
func (p *place) bases() []string {
	bases := []string{p.dir + "/t", p.dir + "/t"}
	if len(p.views) > 1 && p.views[1].hidden != nil {
		bases = append(bases, p.dir+"/v")
	}
	return bases
}

// path is a node's place on the host.
func (p *place) path(n *node, name ...string) string {
	return filepath.Join(slices.Concat([]string{p.dir, "t"}, n.path(), name)...)
}

// wantNodes is how many nodes a tree is kept at.
const wantNodes = 45

// garden makes what accesses have removed, and removes what they have left over,
// outside of any session, with some Unix sockets. It also moves a directory, as others do on a host.
func (p *place) garden(g generator, wantSockets int) {
	for {
		d := draw{g, &view{tree: p.tree, from: p.dir + "/t"}}
		list := p.tree.all()
		sockets := len(d.nodes(socket))
		switch {
		case len(list) > 2*wantNodes || p.tooDeep(list), len(list) > 1 && g.chance(20): // where no name is free, one is made
			p.discard(pick(g, list[1:]...))
		case len(list) < wantNodes || sockets < wantSockets:
			p.plant(d, sockets < wantSockets)
		default:
			p.shift(d)
			return
		}
	}
}

func (p *place) tooDeep(list []*node) bool {
	return slices.ContainsFunc(list, func(n *node) bool { return n.depth() > 3*maxDepth })
}

func (p *place) discard(n *node) {
	if err := os.RemoveAll(p.path(n)); err != nil {
		p.t.Fatal(err)
	}
	n.remove()
}

func (p *place) plant(d draw, wantSocket bool) {
	dir, name, _ := d.vacancy()
	if dir == nil {
		return
	}
	n, path := newNode(pick(d.generator, directory, directory, regular, regular, symlink)), p.path(dir, name)
	if wantSocket {
		n.kind = socket
	}
	var err error
	switch n.kind {
	case directory:
		err = os.Mkdir(path, 0o755)
	case regular:
		err = os.WriteFile(path, []byte("content\n"), 0o755)
	case symlink:
		n.target = d.target(dir)
		err = os.Symlink(n.target, path)
	case socket:
		err = listenAt(p.t, p.path(dir), name)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	n.put(dir, name)
}

func (p *place) shift(d draw) {
	n := d.one(directory)
	dir, name, _ := d.vacancy()
	if n == nil || dir == nil || dir.within(n) {
		return
	}
	if err := os.Rename(p.path(n), p.path(dir, name)); err != nil {
		p.t.Fatal(err)
	}
	n.put(dir, name)
}

// listenAt serves at a name in a directory, however long its path is.
func listenAt(t *testing.T, dir, name string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return serveUnix(t, fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}

func abstractNames() []string { return []string{"bailiff-a", "bailiff-ab", "bailiff-c"} }

// serveUnix accepts connections and closes them.
func serveUnix(t *testing.T, name string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return nil
}

// mergeOver mounts an overlay over what a place has by now, and makes that the place.
func (p *place) mergeOver() {
	p.t.Helper()
	layers, merged := kerneltest.TmpfsDir(p.t), p.t.TempDir()
	for _, dir := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(layers, dir), 0o755); err != nil {
			p.t.Fatal(err)
		}
	}
	mount(p.t, "overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%[2]s/upper,workdir=%[2]s/work,redirect_dir=on", p.dir, layers))
	p.dir = merged
}

// furnish makes a directory a root that the prober can live in.
func furnish(t *testing.T, dir string) {
	t.Helper()
	image, err := os.ReadFile(executable())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/prober", image, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/proc", "/dev"} {
		if err := os.Mkdir(dir+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, "proc", dir+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}
