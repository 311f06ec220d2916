// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/internal/audit"
)

func tailCommand(env *environment) *cobra.Command {
	c := &cobra.Command{
		Use:   "tail",
		Short: "Show the events of the log, and follow it",
		Long: `Tail reads bailiffd's log from its files, so it works with the daemon dead. It
prints the last 20 events that are selected, or with --since all from then on,
and with -f goes on with those to come.

In the pretty form an event that only repeats the one before is counted, not
printed; -o json prints every line as it is in the log.

Exit status: 0, or 1 when the log can't be read or some lines of it are damaged.`,
		Args: wants(0, 0, ""),
	}
	t := &tail{env: env, format: output(c, "pretty", "json"), color: &choice{"auto", []string{"auto", "always", "never"}}}
	f := c.Flags()
	f.BoolVarP(&t.follow, "follow", "f", false, "go on with the events to come")
	f.StringVar(&t.agent, "agent", "", "only of this agent: its name or SPIFFE ID")
	f.StringVar(&t.session, "session", "", "only of this session")
	f.StringSliceVar(&t.verdicts, "verdict", nil, "only with one of these verdicts: allow, deny, audit")
	f.StringSliceVar(&t.kinds, "kind", nil, "only of one of these kinds: action, session, policy, grant, system")
	f.StringVar(&t.since, "since", "", "only from then on: a time such as 2026-01-31T08:00:00Z, or how long ago, such as 10m or 2d")
	f.StringVarP(&t.last, "lines", "n", "", "how many of the events that are there: a number, or all")
	f.Var(t.color, "color", "colour in the pretty form")
	c.RunE = func(c *cobra.Command, _ []string) error { return t.run(c.Context()) }
	return c
}

// tail is one run of the command.
type tail struct {
	env            *environment
	format, color  *choice
	follow         bool
	agent, session string
	verdicts       []string
	kinds          []string
	since, last    string
}

func (t *tail) run(ctx context.Context) error {
	o, err := t.options()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir := audit.Directory(t.env.stateDir)
	visit, finish := t.printer(&o)
	summary, err := audit.Read(ctx, dir, o, visit)
	if ended := finish(); err == nil {
		err = ended
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil // the reader has seen enough
	}
	if err != nil {
		return t.explain(dir, err)
	}
	return t.tellSkipped(summary)
}

// printer returns what prints each event, and what is to be done at the end.
func (t *tail) printer(o *audit.ReadOptions) (visit func(audit.Record) error, finish func() error) {
	out := bufio.NewWriter(t.env.stdout)
	if t.format.value == "json" {
		o.Idle = out.Flush
		return func(r audit.Record) error {
			_, err := out.Write(append(printableJSON(r.Line), '\n'))
			return err
		}, out.Flush
	}
	p := audit.NewPrinter(out, t.colored(), t.env.zone, t.env.now)
	o.Idle = func() error { return errors.Join(p.Quiet(), out.Flush()) }
	return func(r audit.Record) error { return p.Print(&r.Event) },
		func() error { return errors.Join(p.Flush(), out.Flush()) }
}

func (t *tail) colored() bool {
	if t.color.value != "auto" {
		return t.color.value == "always"
	}
	return t.env.getenv("NO_COLOR") == "" && t.env.getenv("TERM") != "dumb" && t.env.isTerminal(t.env.stdout)
}

// explain says what to do about a log that cannot be read.
func (t *tail) explain(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no log in %s: bailiffd has not run here, or its state is elsewhere; start it with `systemctl start bailiffd` or pass --state-dir", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("you may not read the log in %s: %s", dir, readAdvice(t.env.stateDir, dir))
	}
	return err
}

// readAdvice names the group that may read the log, as far as it can be seen.
func readAdvice(paths ...string) string {
	advice := "run this as root, or with sudo"
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return advice
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Gid != 0 {
			name := strconv.FormatUint(uint64(st.Gid), 10)
			if g, err := user.LookupGroupId(name); err == nil {
				name = g.Name
			}
			advice = fmt.Sprintf("run this with sudo, or as a member of the group %s", name)
		}
	}
	return advice
}

func (t *tail) tellSkipped(s audit.Summary) error {
	if s.Skipped == 0 {
		return nil
	}
	for _, example := range s.Examples {
		fmt.Fprintln(t.env.stderr, audit.Printable(example.Error()))
	}
	if more := s.Skipped - len(s.Examples); more > 0 {
		fmt.Fprintf(t.env.stderr, "and %d more\n", more)
	}
	lines := "lines of the log are"
	if s.Skipped == 1 {
		lines = "line of the log is"
	}
	return fmt.Errorf("%d %s damaged, and left out above", s.Skipped, lines)
}
