// SPDX-License-Identifier: Apache-2.0

package escape

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring, as far as one request at a time needs it.
const (
	ringSQPoll     = 1 << 1
	ringEntries    = 4
	ringGetEvents  = 1 << 0
	ringWakeup     = 1 << 1
	ringOffsetSQEs = 0x10000000

	ringSendMsg = 9
	ringConnect = 16
	ringOpenAt  = 18
	ringRead    = 22
	ringSocket  = 45
)

// ring is an io_uring with a single mapping of both queues.
type ring struct {
	fd             int
	queue, entries []byte
	sq, cq         [10]uint32 // offsets: head, tail, mask, entries, flags or overflow, dropped or cqes, array, ...
}

type ringParams struct {
	_, _, flags, _, idle, _, _ uint32
	_                          [3]uint32
	sq, cq                     [10]uint32
}

// newRing makes a ring; the descriptor is all that another process needs of it.
func newRing(flags uint32) (*ring, error) {
	p := ringParams{flags: flags, idle: 60_000}
	fd, err := value(unix.SYS_IO_URING_SETUP, ringEntries, pointer(&p))
	if err != nil {
		return nil, err
	}
	return mapRing(fd, p.sq, p.cq)
}

// mapRing maps a ring that another process made: its size tells where everything is.
func mapRing(fd int, sq, cq [10]uint32) (*ring, error) {
	queue, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	entries, err := unix.Mmap(fd, ringOffsetSQEs, ringEntries*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	return &ring{fd, queue, entries, sq, cq}, err
}

func (r *ring) close() {
	_ = unix.Munmap(r.queue)
	_ = unix.Munmap(r.entries)
	_ = unix.Close(r.fd)
}

func (r *ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.queue[offset])) }

// sqe is one request.
type sqe struct {
	op, flags   uint8
	priority    uint16
	fd          int32
	offset      uint64
	address     uint64
	length      uint32
	opFlags     uint32
	userData    uint64
	buffer      uint16
	personality uint16
	file        int32
	address3    uint64
	_           uint64
}

// do submits a request and waits for its result.
func (r *ring) do(e sqe) (int, error) {
	tail := r.word(r.sq[1])
	index := atomic.LoadUint32(tail) & *r.word(r.sq[2])
	*(*sqe)(unsafe.Pointer(&r.entries[index*64])) = e
	binary.NativeEndian.PutUint32(r.queue[r.sq[6]+4*index:], index)
	seen := atomic.LoadUint32(r.word(r.cq[0]))
	atomic.AddUint32(tail, 1)
	if _, err := value(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, ringGetEvents|ringWakeup); err != nil {
		return -1, err
	}
	if atomic.LoadUint32(r.word(r.cq[1])) == seen {
		return -1, fmt.Errorf("the ring has no answer")
	}
	result := int32(binary.NativeEndian.Uint32(r.queue[r.cq[5]+16*(seen&*r.word(r.cq[2]))+8:]))
	atomic.AddUint32(r.word(r.cq[0]), 1)
	if result < 0 {
		return -1, unix.Errno(-result)
	}
	return int(result), nil
}

// register puts a file into the ring.
func (r *ring) register(file int) error {
	files := [1]int32{int32(file)}
	const registerFiles = 2
	return call(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerFiles, pointer(&files), 1)
}

// withRing makes a ring for one request.
func withRing(flags uint32, request func(*ring) error) error {
	r, err := newRing(flags)
	if err != nil {
		return err
	}
	defer r.close()
	return request(r)
}
