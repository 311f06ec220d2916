// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Some programs are a burden to everybody, or are needed by few: they are
// loaded and pinned with the others, but attached only while something demands
// them. Whether one is attached, its pinned link says.

// tickEvery is how often, a second, each processor looks whether what it runs
// is to be killed.
const tickEvery = 50

// demanded tells whether a program is attached only on demand.
func demanded(program string) bool {
	switch program {
	case enforcerProgFilePermission, enforcerProgIngress, enforcerProgTick:
		return true
	}
	return false
}

// demand attaches a program, or detaches it.
func (e *Enforcer) demand(program string, wanted bool) error {
	pins, err := demandPins(e.pins, program)
	if err != nil || wanted == (len(pins) > 0) {
		return err
	}
	if wanted {
		return e.attachDemanded(program)
	}
	var errs []error
	for _, pin := range pins {
		errs = append(errs, detach(pin))
	}
	return errors.Join(errs...)
}

// demandPins lists the pinned links of a program.
func demandPins(dir, program string) (pins []string, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "links"))
	if err != nil {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	for _, entry := range entries {
		name, _, _ := strings.Cut(entry.Name(), "-")
		if name == program {
			pins = append(pins, filepath.Join(dir, "links", entry.Name()))
		}
	}
	return pins, nil
}

func (e *Enforcer) attachDemanded(program string) (err error) {
	p, err := ebpf.LoadPinnedProgram(filepath.Join(e.pins, "programs", program), nil)
	if err != nil {
		return fmt.Errorf("attach %s: %w", program, err)
	}
	defer p.Close()
	links, err := linkDemanded(program, p, e.cgroup)
	defer closeLinks(links)
	if err != nil {
		return err
	}
	for name, l := range links {
		if err := l.Pin(filepath.Join(e.pins, "links", name)); err != nil {
			return fmt.Errorf("pin the link of %s: %w", program, err)
		}
	}
	return nil
}

// linkDemanded attaches a program wherever it belongs. It returns the links that
// there are, by the names of their pins, also on an error.
func linkDemanded(program string, p *ebpf.Program, cgroup string) (links map[string]link.Link, err error) {
	links = map[string]link.Link{}
	switch p.Type() {
	case ebpf.LSM:
		links[program], err = link.AttachLSM(link.LSMOptions{Program: p})
	case ebpf.PerfEvent:
		for _, cpu := range onlineCPUs() {
			name := fmt.Sprint(program, "-", cpu)
			if links[name], err = attachTick(p, cpu); err != nil {
				delete(links, name)
				break
			}
		}
	default:
		links[program], err = link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: attachType(program), Program: p})
	}
	if err != nil {
		delete(links, program)
		return links, fmt.Errorf("attach %s: %w", program, err)
	}
	runtime.KeepAlive(p)
	return links, nil
}

// demandAlike attaches to links what a build before has attached on demand, but
// for what is linked already.
func demandAlike(coll *ebpf.Collection, chosen programs, o Options, before *build, links, linked map[string]link.Link) error {
	if before == nil {
		return nil
	}
	for _, program := range chosen.kept {
		pins, err := demandPins(before.dir, program)
		if err != nil {
			return err
		}
		if len(pins) == 0 || linked[program] != nil {
			continue
		}
		more, err := linkDemanded(program, coll.Programs[program], o.Cgroup)
		maps.Copy(links, more)
		if err != nil {
			return err
		}
	}
	return nil
}

// attachTick runs a program at the rate of tickEvery on a processor that is
// not idle.
func attachTick(p *ebpf.Program, cpu int) (link.Link, error) {
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Sample: tickEvery, Bits: unix.PerfBitFreq,
	}, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open the clock of processor %d: %w", cpu, err)
	}
	defer unix.Close(fd)
	return link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: p, Attach: ebpf.AttachPerfEvent})
}

// onlineCPUs lists the processors in use; the first one where that can't be read.
func onlineCPUs() []int {
	var cpus []int
	for cpu := range ebpf.MustPossibleCPU() {
		_, err := os.Stat(fmt.Sprintf("/sys/devices/system/cpu/cpu%d", cpu))
		online, missing := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", cpu))
		if err == nil && (errors.Is(missing, fs.ErrNotExist) || strings.TrimSpace(string(online)) == "1") {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// FlushFolds has the programs tell of the acts that are no longer repeated, and of
// all acts of a session that is not 0, how often they were.
func (e *Enforcer) FlushFolds(session uint64) error {
	p, err := ebpf.LoadPinnedProgram(filepath.Join(e.pins, "programs", enforcerProgFlushFolds), nil)
	if err != nil {
		return fmt.Errorf("tell of repeated acts: %w", err)
	}
	defer p.Close()
	if _, err := p.Run(&ebpf.RunOptions{Context: session}); err != nil {
		return fmt.Errorf("tell of repeated acts: %w", err)
	}
	return nil
}

// detach takes a pinned link off.
func detach(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return fmt.Errorf("detach %s: %w", filepath.Base(pin), err)
	}
	defer l.Close()
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("detach %s: %w", filepath.Base(pin), err)
	}
	return nil
}
