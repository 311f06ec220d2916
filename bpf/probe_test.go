// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// probeVariable makes the test binary a prober: it reads calls from standard
// input, one a line, and answers each with a result.
const probeVariable = "BAILIFF_TEST_PROBE"

// result is what a probe saw.
type result struct {
	Errno  syscall.Errno
	Value  string
	Broken string // the probe itself is wrong
}

type operation func(arg func(int) string) (string, error)

func probe() int {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() { // a label is put on the first thread
		fmt.Fprintln(os.Stderr, unix.Exec(executable(), os.Args, os.Environ()))
		return 1
	}
	ops := fileProbes()
	for _, more := range []map[string]operation{inodeProbes(), execProbes(), guardProbes(), netProbes(), grantProbes(), performProbes()} {
		maps.Copy(ops, more)
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	answer := result{} // to the start, and to an exec
	for {
		if err := out.Encode(answer); err != nil {
			return 1
		}
		var call []string
		if err := in.Decode(&call); err == io.EOF {
			return 0
		} else if err != nil {
			return 1
		}
		answer = run(ops, call)
	}
}

func run(ops map[string]operation, call []string) (r result) {
	op := ops[call[0]]
	if op == nil {
		return result{Broken: "no such probe"}
	}
	defer func() {
		if p := recover(); p != nil {
			r = result{Broken: fmt.Sprint(p)}
		}
	}()
	value, err := op(func(i int) string {
		if i+1 < len(call) {
			return call[i+1]
		}
		return ""
	})
	r = result{Value: value}
	if err != nil && !errors.As(err, &r.Errno) {
		r.Broken = err.Error()
	}
	return r
}

// number reads an argument; it is the test's mistake if there is none.
func number(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

// flags joins words by what they stand for.
func flags(words string, table map[string]int) int {
	n := 0
	for word := range strings.FieldsSeq(words) {
		bit, ok := table[word]
		if !ok {
			panic("no flag " + word)
		}
		n |= bit
	}
	return n
}
