// SPDX-License-Identifier: Apache-2.0

// Command bench measures what enforcement costs beside doing without, beside
// Landlock and beside a proxy. See its -help for the method; scripts/bench runs
// it on this machine's kernel and in a guest whose clock counts instructions.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `usage: bench [OPTION]... [ROW]...
       bench -print FILE...

Measures the rows named (all: %s) on this kernel and prints a table.

Each way of doing a job (with nothing attached, with one empty LSM program, with
everything in force, under Landlock, through a proxy) is timed in a process of
its own that lives through the whole run. A round goes through what is attached
there and back again (A B B A), so that a drift hits both sides. A time is the
median over parts of a job; a figure is computed within each round, from the two
times of each way; the median over the rounds is printed, with the interval that
holds it with 95 %% confidence or more (order statistics, no assumption about the
noise). The first round warms up and doesn't count.

Only such figures of one run mean something: machines are noisy. In a guest of
scripts/vm --icount the clock counts instructions and repeats agree within 1 %%;
it knows no cache misses and no costly atomics, which Landlock's cost is made of.
There an empty LSM program alone costs 2 %% of an open, so the measure is what is
added to that. Commands (B7, B8) are timed there by what they ran: an idle guest's
clock follows the host's.

Options:
`

// exit statuses, as everywhere here.
const (
	exitFailure = 1
	exitUsage   = 2
)

type options struct {
	rounds int
	json   bool
	print  bool
	policy string
	rows   []string
}

func main() {
	if os.Getenv(workerVariable) != "" {
		os.Exit(work(os.Stdin, os.Stdout))
	}
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitUsage)
	}
	if err := run(o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(exitFailure)
	}
}

func parse(arguments []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 11, "rounds that count")
	flags.StringVar(&o.policy, "policy", "examples/coding-agent.yaml", "the policy, whose paths are adapted")
	flags.BoolVar(&o.print, "print", false, "print a table of results that -o json wrote")
	format := flags.String("o", "table", "table or json")
	flags.Usage = func() {
		fmt.Fprintf(stderr, usage, strings.Join(rowNames(), " "))
		flags.PrintDefaults()
	}
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	o.rows = flags.Args()
	o.json = *format == "json"
	switch {
	case *format != "table" && *format != "json":
		return o, fmt.Errorf("-o %s: choose table or json", *format)
	case o.rounds < 6:
		return o, errors.New("fewer than 6 rounds have no 95 % interval: raise -rounds")
	case o.print:
		return o, nil
	}
	return o, checkRows(o.rows)
}

func run(o options, stdout, stderr io.Writer) error {
	list, err := gather(o, stderr)
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(stdout, list)
	}
	return writeTable(stdout, list)
}

func gather(o options, stderr io.Writer) ([]result, error) {
	if o.print {
		return readResults(o.rows)
	}
	// An interrupted run must not leave its programs in force.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return measure(ctx, o, stderr)
}
