// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// programs splits the object's programs by where they attach.
type programs struct {
	lsm    []string // and tracepoints
	cgroup []string
	kept   []string // pinned, to be attached or run when there is need: see demand.go
}

// findRoot is run at load and attached nowhere.
const findRoot = enforcerProgFindRoot

// choose drops from spec the programs that this kernel has no hook for, and all
// LSM programs on the basic tier, and returns the rest. Hooks that a kernel is
// too old for have an older one in their place: path_truncate saw ftruncate
// before file_truncate was there, inode_setxattr saw access control lists.
func choose(spec *ebpf.CollectionSpec, full bool) (programs, error) {
	var chosen programs
	kernel, err := kernelTypes(full)
	if err != nil {
		return programs{}, err
	}
	for name, p := range spec.Programs {
		switch {
		case name == findRoot:
		case name == enforcerProgFlushFolds:
			chosen.kept = append(chosen.kept, name)
		case p.Type == ebpf.Tracing && full:
			chosen.lsm = append(chosen.lsm, name)
		case name == enforcerProgIngress:
			chosen.kept = append(chosen.kept, name)
		case p.Type == ebpf.CGroupSockAddr || p.Type == ebpf.CGroupSKB:
			chosen.cgroup = append(chosen.cgroup, name)
		case full && demanded(name):
			chosen.kept = append(chosen.kept, name)
		case !full:
			delete(spec.Programs, name)
		default:
			arguments, err := hookArguments(kernel, p.AttachTo)
			if errors.Is(err, btf.ErrNotFound) && optional(name) {
				delete(spec.Programs, name)
				continue
			}
			if err != nil {
				return programs{}, fmt.Errorf("look up hook %s: %w", p.AttachTo, err)
			}
			if other := (name == enforcerProgInodeSetattrIdmap) != (arguments == 3); other && p.AttachTo == "inode_setattr" {
				delete(spec.Programs, name)
				continue
			}
			chosen.lsm = append(chosen.lsm, name)
		}
	}
	slices.Sort(chosen.lsm)
	slices.Sort(chosen.cgroup)
	return chosen, nil
}

// optional tells whether 6.1 has no such hook.
func optional(program string) bool {
	switch program {
	case enforcerProgFileTruncate, enforcerProgInodeSetAcl, enforcerProgInodeRemoveAcl, enforcerProgFileIoctlCompat, enforcerProgUringAllowed:
		return true
	}
	return false
}

// kernelTypes reads the running kernel's types, which takes a while, where they
// will be needed.
func kernelTypes(needed bool) (*btf.Spec, error) {
	if !needed {
		return nil, nil
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	return kernel, nil
}

// hookArguments returns the number of arguments of an LSM hook.
func hookArguments(kernel *btf.Spec, hook string) (int, error) {
	var fn *btf.Func
	if err := kernel.TypeByName("bpf_lsm_"+hook, &fn); err != nil {
		return 0, err
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return 0, fmt.Errorf("%s is not a function", fn.Name)
	}
	return len(proto.Params), nil
}
