// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ring is the kernel's ring buffer, mapped: see Documentation/bpf/ringbuf.rst.
// Positions are bytes since it was made and only grow. What lies between the
// consumer's position and the producer's is there to be read, by this process and
// by the next one; the kernel writes over what is before the consumer's.
type ring struct {
	control  []byte // the consumer's page
	pages    []byte // the producer's page, and the data twice over: no record ends at the seam
	data     []byte
	consumer *atomic.Uint64
	producer *atomic.Uint64
	mask     uint64
}

// The header of a record; the sample follows, and the next header where that
// ends, at a multiple of eight.
const (
	ringHeader = 8
	ringBusy   = 1 << 31 // its writer is not done
	ringDrop   = 1 << 30 // its writer thought better of it
)

func mapRing(m *ebpf.Map) (*ring, error) {
	page, size := os.Getpagesize(), int(m.MaxEntries())
	control, err := unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the reader's position: %w", err)
	}
	pages, err := unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the records: %w", err), unix.Munmap(control))
	}
	return &ring{
		control: control, pages: pages, data: pages[page:], mask: uint64(size - 1),
		consumer: (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(control))),
		producer: (*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(pages))),
	}, nil
}

// at returns the record at a position and where it ends; ok is false where there
// is none yet. A record that was dropped by its writer has no sample.
func (r *ring) at(position uint64) (sample []byte, end uint64, ok bool) {
	if position >= r.producer.Load() {
		return nil, position, false
	}
	start := position & r.mask
	header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[start])))
	if header&ringBusy != 0 {
		return nil, position, false
	}
	size := uint64(header &^ (ringBusy | ringDrop))
	end = position + (size+ringHeader+7)&^7
	if header&ringDrop != 0 {
		return nil, end, true
	}
	return r.data[start+ringHeader:][:size], end, true
}

func (r *ring) unmap() error {
	return errors.Join(unix.Munmap(r.control), unix.Munmap(r.pages))
}

// bell wakes one that waits for the ring.
type bell struct {
	epoll int
	event int // an eventfd, which rings it from this process
}

// hang hangs a bell on the ring. It rings once for each time that the kernel wakes
// the readers: what was read stays in the ring until it is committed, and a bell
// that goes by what is there would never be still.
func hang(m *ebpf.Map) (*bell, error) {
	b := &bell{epoll: -1, event: -1}
	var err error
	if b.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if b.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(err, b.close())
	}
	for _, fd := range []int{m.FD(), b.event} {
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
		if err := unix.EpollCtl(b.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

// wait returns when the bell rang, or after some milliseconds.
func (b *bell) wait(milliseconds int) error {
	var events [2]unix.EpollEvent
	if _, err := unix.EpollWait(b.epoll, events[:], milliseconds); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

func (b *bell) ring() error {
	_, err := unix.Write(b.event, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

func (b *bell) close() error {
	var errs []error
	for _, fd := range []int{b.epoll, b.event} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
