// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group makes a command that only holds others: alone it prints its help, with
// a word it does not know it says which it may have meant.
func group(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			c.SetOut(c.ErrOrStderr())
			return errors.Join(c.Help(), &exitError{code: exitUsage})
		}
		var names []string
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		return usageError("there is no command %q%s; see `%s --help`", c.CommandPath()+" "+args[0], meant(args[0], names), c.CommandPath())
	}
	return c
}

// wants checks the number of arguments; max < 0 is any number.
func wants(min, max int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usageError("`%s` needs %s; usage: %s", c.CommandPath(), what, c.UseLine())
		case max >= 0 && len(args) > max:
			return usageError("`%s` takes no argument %q; usage: %s", c.CommandPath(), args[max], c.UseLine())
		}
		return nil
	}
}

// flagError words what is wrong with a flag.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError("%w; see `%s --help`", err, c.CommandPath())
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	given := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usageError("`%s` has no flag -%s; see `%s --help`", c.CommandPath(), given, c.CommandPath())
	}
	hint := ""
	if near := nearest(given, names); near != "" {
		hint = fmt.Sprintf("; did you mean --%s?", near)
	}
	return usageError("`%s` has no flag --%s%s; see `%s --help`", c.CommandPath(), given, hint, c.CommandPath())
}

func meant(given string, names []string) string {
	if near := nearest(given, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// nearest returns the name that given was probably meant to be, or "".
func nearest(given string, names []string) string {
	best, least := "", max(2, len(given)/3)+1
	for _, name := range names {
		d := distance(given, name)
		if given != "" && strings.HasPrefix(name, given) {
			d = 1
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// choice is a flag that takes one of some words.
type choice struct {
	value string
	words []string
}

// String, Set and Type make it a pflag.Value.
func (c *choice) String() string { return c.value }

// Set takes the value if it is one of the words.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.words, s) {
		return fmt.Errorf("it must be one of %s", strings.Join(c.words, ", "))
	}
	c.value = s
	return nil
}

// Type is what the help shows.
func (c *choice) Type() string { return strings.Join(c.words, "|") }

// output adds -o to a command; the first word is the default.
func output(c *cobra.Command, words ...string) *choice {
	v := &choice{words[0], words}
	c.Flags().VarP(v, "output", "o", "how to print")
	return v
}
