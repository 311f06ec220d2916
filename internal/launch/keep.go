// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Numbers of descriptors that can be kept: the standard ones always are.
const (
	lowestKept  = 3
	highestKept = 1023
)

// forkSpare is how many numbers above the highest kept one syscall.ForkExec may
// use on its way, with what is next to them.
const forkSpare = 8

// kept is a descriptor of the caller's that the command has under the same number.
type kept struct {
	Number   int
	Link     string // what /proc shows it as; the bytes of a path may be any
	Internet bool   // a TCP or UDP socket
}

func (k kept) String() string { return strconv.Itoa(k.Number) + " " + strconv.Quote(k.Link) }

// inspectKept looks at the descriptors that are to be kept, and returns them in
// the order of their numbers, or an *Error about the first that can't be.
func inspectKept(numbers []int) ([]kept, error) {
	sorted := slices.Sorted(slices.Values(numbers))
	var list []kept
	for i, n := range sorted {
		k, err := kept{}, checkNumber(n)
		if i > 0 && n == sorted[i-1] {
			err = errors.New("it is named twice: once is enough")
		}
		if err == nil {
			k, err = inspect(n)
		}
		if err != nil {
			return nil, failure(ExitFailed, "--keep-fd %d: %v", n, err)
		}
		list = append(list, k)
	}
	return list, nil
}

func checkNumber(n int) error {
	switch {
	case n >= 0 && n < lowestKept:
		return errors.New("standard input, output and error are always handed on: leave it out")
	case n < 0 || n > highestKept:
		return fmt.Errorf("only numbers from %d to %d can be handed on: open it under another one", lowestKept, highestKept)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("get the limit of open descriptors: %w", err)
	}
	if uint64(n)+forkSpare >= limit.Cur {
		return fmt.Errorf("it is too near the limit of %d open descriptors: raise that (ulimit -n), or open it under a lower number", limit.Cur)
	}
	return nil
}

// unjudged refuses what can't be kept on the basic tier: the programs of the
// session's cgroup see only the sockets that were made in it.
func unjudged(list []kept) error {
	for _, k := range list {
		if k.Internet {
			return fmt.Errorf("--keep-fd %d: it is a TCP or UDP socket, and on the basic tier nothing judges where one from outside sends: hand on a Unix socket or a pipe instead (`bailiff doctor` says what the full tier needs)", k.Number)
		}
	}
	return nil
}

// describe words the list for the log.
func describe(list []kept) []string {
	var texts []string
	for _, k := range list {
		texts = append(texts, k.String())
	}
	return texts
}

// freeNumbers returns the two lowest numbers from 3 on that are not kept.
func freeNumbers(list []kept) (first, second int) {
	free := func(n int) int {
		for slices.ContainsFunc(list, func(k kept) bool { return k.Number == n }) {
			n++
		}
		return n
	}
	first = free(lowestKept)
	return first, free(first + 1)
}
