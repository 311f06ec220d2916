// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math/rand/v2"
	"slices"
	"strings"

	"bailiff.dev/bailiff/policy"
)

// access is one operation that a confined process tries, and what it asks for.
type access struct {
	call  []string // for the prober
	steps []step   // in the order in which the kernel takes them
	moved *step    // the one that gives something another name
}

// draw is an access in the making.
type draw struct {
	generator
	view *view
}

// spell returns how a process may write a node's path: at times through a
// symbolic link to a directory above it.
func (d draw) spell(n *node) string {
	path := n.path()
	if d.chance(4) {
		for _, link := range d.nodes(symlink) {
			to := link.resolve(5)
			if to != nil && to.kind == directory && to != n && n.within(to) && !link.within(n) && d.chance(2) {
				path = append(link.path(), path[len(to.path()):]...)
				break
			}
		}
	}
	return d.view.from + "/" + strings.Join(path, "/")
}

// at is where the policy is asked about a node, or about a name in a directory.
func (d draw) at(n *node, name ...string) spot {
	s := spot{path: slices.Concat(d.view.judged, n.path(), name), outside: d.view.outside}
	if d.view.hidden != nil {
		s.hidden = slices.Concat(d.view.hidden, n.path(), name)
	}
	return s
}

// own is the same where the kernel sees no mount: the file system's own route decides.
func (d draw) own(n *node) spot { return spot{path: slices.Concat(d.view.own, n.path())} }

func (d draw) nodes(kinds ...nodeKind) (list []*node) {
	for _, n := range d.view.tree.all() {
		if slices.Contains(kinds, n.kind) {
			list = append(list, n)
		}
	}
	return list
}

// one draws a node that is one of some kinds and not the root; nil: there is none.
func (d draw) one(kinds ...nodeKind) *node {
	list := slices.DeleteFunc(d.nodes(kinds...), func(n *node) bool { return n.parent == nil })
	if len(list) == 0 {
		return nil
	}
	return pick(d.generator, list...)
}

// object draws something that a path leads to: how that is spelled, and what it is.
func (d draw) object(kinds ...nodeKind) (string, *node) {
	n := d.one(append(kinds, symlink)...)
	if n == nil {
		return "", nil
	}
	to := n.resolve(5)
	if to == nil || to.parent == nil || !slices.Contains(kinds, to.kind) {
		return "", nil
	}
	return d.spell(n), to
}

// maxDepth keeps trees shallow, so that rules meet them.
const maxDepth = 5

// vacancy draws a name that is not there yet.
func (d draw) vacancy() (dir *node, name, path string) {
	dir, name = pick(d.generator, d.nodes(directory)...), d.name()
	if dir.below[name] != nil || dir.depth() >= maxDepth {
		return nil, "", ""
	}
	return dir, name, d.spell(dir) + "/" + name
}

// single is an access that asks for rights on one object.
func (d draw) single(rights policy.Access, call ...string) func(kinds ...nodeKind) *access {
	return func(kinds ...nodeKind) *access {
		path, n := d.object(kinds...)
		if n == nil {
			return nil
		}
		call := slices.Insert(slices.Clone(call), 1, path)
		return &access{call: call, steps: []step{{at: d.at(n), rights: rights}}}
	}
}

// opening draws an open without O_CREAT.
func (d draw) opening() *access {
	const r, w = policy.Read, policy.Write
	if d.chance(4) {
		return d.single(r, "open", "r dir")(directory)
	}
	mode := pick(d.generator, openMode{"r", r}, openMode{"r nofollow", r}, openMode{"w", w}, openMode{"rw", r | w}, openMode{"w append", w},
		openMode{"r trunc", r | w}, openMode{"w trunc", w}, openMode{"3", r | w}, openMode{"path", 0})
	a := d.single(mode.rights, "open", mode.flags)(regular)
	if a != nil && mode.flags == "r nofollow" && d.view.tree.follow(strings.TrimPrefix(a.call[1], d.view.from+"/"), 1) == nil {
		return nil // it would be refused for the link that it goes by
	}
	return a
}

type openMode struct {
	flags  string
	rights policy.Access
}

// creating draws an open with O_CREAT of a name that is not there: the file is
// made before it is opened, and stays if only that is denied.
func (d draw) creating() *access {
	dir, name, path := d.vacancy()
	if dir == nil {
		return nil
	}
	mode := pick(d.generator, openMode{"r creat", policy.Read}, openMode{"w creat excl", policy.Write}, openMode{"rw creat trunc", policy.Read | policy.Write})
	return &access{call: []string{"open", path, mode.flags}, steps: []step{
		{at: d.at(dir, name), rights: policy.Create, done: func() { newNode(regular).put(dir, name) }},
		{at: d.at(dir, name), rights: mode.rights},
	}}
}

// making draws an operation that makes something other than by opening it.
func (d draw) making() *access {
	dir, name, path := d.vacancy()
	if dir == nil {
		return nil
	}
	made := newNode(special)
	s := step{at: d.at(dir, name), rights: policy.Create, done: func() { made.put(dir, name) }}
	var call []string
	switch d.IntN(6) {
	case 0, 1:
		made.kind, call = directory, []string{"mkdir", path}
	case 2:
		made.kind, call = regular, []string{"mknod", path, "file"}
	case 3:
		call = []string{"mknod", path, "fifo"}
	case 4:
		s.device, call = true, []string{"mknod", path, "char"}
	default:
		made.kind, made.target = symlink, d.target(dir)
		call = []string{"symlink", made.target, path}
	}
	return &access{call: call, steps: []step{s}}
}

// target draws what a symbolic link in a directory leads to, or not.
func (g generator) target(dir *node) string {
	up := strings.Repeat("../", g.IntN(dir.depth()+1))
	return up + g.name()
}

// removing draws an unlink or rmdir.
func (d draw) removing() *access {
	op, n := "unlink", d.one(regular, symlink, special)
	if d.chance(3) {
		op, n = "rmdir", d.one(directory)
	}
	if n == nil || len(n.below) > 0 {
		return nil
	}
	return &access{call: []string{op, d.spell(n)}, steps: []step{{at: d.at(n), rights: policy.Delete, done: n.remove}}}
}

// renaming draws a rename, with or without something at the new name.
func (d draw) renaming() *access {
	n := d.one(regular, symlink, special, directory, directory, socket)
	if n == nil {
		return nil
	}
	m := &move{rights: policy.Create, directory: n.kind == directory}
	a := &access{steps: []step{{at: d.at(n), rights: policy.Delete, move: m}}}
	if d.chance(3) {
		over := d.one(n.kind)
		if over == nil || over == n || over.inode == n.inode || n.within(over) || over.within(n) || len(over.below) > 0 || over.kind == socket {
			return nil
		}
		m.to, m.rights = d.at(over), policy.Create|policy.Delete
		a.call = []string{"rename", d.spell(n), d.spell(over)}
		a.steps[0].done = func() { n.put(over.parent, over.name) }
	} else {
		dir, name, path := d.vacancy()
		if dir == nil || dir.within(n) {
			return nil
		}
		m.to = d.at(dir, name)
		a.call = []string{"rename", d.spell(n), path}
		a.steps[0].done = func() { n.put(dir, name) }
	}
	a.moved = &a.steps[0]
	return a
}

// exchanging draws a RENAME_EXCHANGE, which deletes and creates at both names.
func (d draw) exchanging() *access {
	x, y := d.one(regular, directory, symlink), d.one(regular, directory, symlink)
	if x == nil || y == nil || x.inode == y.inode || x.within(y) || y.within(x) {
		return nil
	}
	const both = policy.Create | policy.Delete
	a := &access{call: []string{"exchange", d.spell(x), d.spell(y)}, steps: []step{{
		at: d.at(x), rights: both, done: func() { exchange(x, y) },
		move: &move{to: d.at(y), rights: both, directory: x.kind == directory, exchange: true},
	}}}
	a.moved = &a.steps[0]
	return a
}

// linking draws a hard link.
func (d draw) linking() *access {
	n := d.one(regular, special, symlink)
	dir, name, path := d.vacancy()
	if n == nil || dir == nil {
		return nil
	}
	another := &node{kind: n.kind, inode: n.inode, target: n.target, below: map[string]*node{}}
	a := &access{call: []string{"link", d.spell(n), path}, steps: []step{{
		at: d.at(n), move: &move{to: d.at(dir, name), rights: policy.Create}, done: func() { another.put(dir, name) },
	}}}
	a.moved = &a.steps[0]
	return a
}

// changing draws a change of metadata.
func (d draw) changing() *access {
	a := d.single(policy.Write, pick(d.generator, "chmod", "chown"))(regular, directory)
	if !d.chance(2) {
		return a
	}
	// Times and extended attributes: these hooks see no mount.
	call := pick(d.generator, []string{"utimes"}, []string{"setxattr", "security.bailiff"})
	path, n := d.object(regular, directory)
	if n == nil {
		return nil
	}
	return &access{call: slices.Insert(slices.Clone(call), 1, path), steps: []step{{at: d.own(n), rights: policy.Write}}}
}

// running draws an exec or an executable mapping.
func (d draw) running() *access {
	a := d.single(policy.Execute, "exec")(regular)
	if a == nil || d.chance(2) {
		return a
	}
	a.call[0] = pick(d.generator, "map", "protect")
	a.steps = []step{{at: a.steps[0].at, rights: policy.Read}, a.steps[0]}
	if a.call[0] == "protect" && d.view.backed {
		a.steps[1].at.outside = true
	}
	return a
}

// connecting draws a connect to a Unix socket. The peer decides, by where it is
// bound: outside of any session, by the path that the host has for it.
func (d draw) connecting() *access {
	if d.chance(3) {
		name := pick(d.generator, abstractNames()...)
		at := spot{path: []string{"\x00", name}}
		return &access{call: []string{"connect", "@" + name}, steps: []step{{at: at, rights: policy.Connect}}}
	}
	path, n := d.object(socket)
	if n == nil {
		return nil
	}
	at := spot{path: slices.Concat(d.view.bound, n.path())}
	return &access{call: []string{"connect", path}, steps: []step{{at: at, rights: policy.Connect}}}
}

// access draws one that a kernel without a policy would grant.
func (d draw) access() *access {
	kinds := []func() *access{
		d.opening, d.opening, d.opening, d.creating, d.making, d.making, d.removing, d.renaming, d.renaming,
		d.exchanging, d.linking, d.changing, d.running, d.connecting,
		func() *access { return d.single(policy.Write, "truncate")(regular) },
	}
	for {
		if a := pick(d.generator, kinds...)(); a != nil {
			return a
		}
	}
}

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 2))} }
