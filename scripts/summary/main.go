// SPDX-License-Identifier: Apache-2.0

// Command summary keeps the results of test runs and adds them up.
//
//	go test -json ./... | summary record [-expect PACKAGES] [-skip REASON] FILE
//	summary table ENVIRONMENT=FILE...
//
// record copies the events of `go test -json` or test2json from standard input to
// FILE, printing packages as they end and the output of tests that fail. What
// began and never ended, and every expected package that never came, is recorded
// as failed: a crashed guest must not look like a short list of passes. With
// -skip nothing was run, for that reason.
//
// table counts, by environment and by reason of skips, and exits 1 if anything
// failed. With CI=true a skip for a missing tool or machine has failed.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// errFailed needs no words after the table.
var errFailed = errors.New("tests failed")

var errUsage = errors.New("usage: summary record [-expect PACKAGES] [-skip REASON] FILE, or summary table ENVIRONMENT=FILE")

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Getenv("CI") == "true")
	switch {
	case err == nil:
	case errors.Is(err, errFailed):
		os.Exit(1)
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "summary:", err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer, ci bool) error {
	if len(arguments) < 2 {
		return errUsage
	}
	switch arguments[0] {
	case "record":
		return record(arguments[1:], in, out)
	case "table":
		return table(arguments[1:], out, ci)
	}
	return errUsage
}

func record(arguments []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("record", flag.ContinueOnError)
	expect := flags.String("expect", "", "packages that must end, separated by blanks")
	skip := flags.String("skip", "", "why nothing was run")
	if flags.Parse(arguments) != nil || flags.NArg() != 1 {
		return errUsage
	}
	file, err := os.Create(flags.Arg(0))
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	r := newRecorder(file, out)
	expected := strings.Fields(*expect)
	if *skip != "" {
		r.skipAll(expected, *skip)
	} else {
		r.copy(in)
		r.finish(expected)
	}
	if err := errors.Join(r.err, file.Close()); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

func table(arguments []string, out io.Writer, ci bool) error {
	var results []result
	for _, argument := range arguments {
		environment, path, ok := strings.Cut(argument, "=")
		if !ok {
			return errUsage
		}
		more, err := readResults(environment, path, ci)
		if err != nil {
			return err
		}
		results = append(results, more...)
	}
	if printTable(out, results) > 0 {
		return errFailed
	}
	return nil
}
