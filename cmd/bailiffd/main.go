// SPDX-License-Identifier: Apache-2.0

// Command bailiffd is the daemon: it puts policies in force in the kernel, starts
// sessions under them, and writes down what they do.
//
// Exit status: 0 stopped as asked, 1 it could not go on, 2 wrong usage.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"bailiff.dev/bailiff/daemon"
	"bailiff.dev/bailiff/internal/canary"
	"bailiff.dev/bailiff/internal/systemd"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if len(os.Args) == 2 && os.Args[1] == canary.Argument {
		os.Exit(canary.Serve())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// flags are the command line; what is given there wins over the file.
type flags struct {
	config, format, level string
	load, remove          bool
	over                  daemon.Config
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var f flags
	usage := true
	c := &cobra.Command{
		Use:   "bailiffd",
		Short: "Enforce policies on agents, in the kernel",
		Long: `bailiffd loads the kernel programs, puts policies in force, and serves
admin.sock and agent.sock. It runs in the foreground.

When it stops, or dies, what is in force stays in force: rules and sessions are
pinned in the kernel, and the next bailiffd adopts them; one of another version
puts its own programs in their place, without a gap. bailiffd --remove ends the
sessions and takes everything off the host.`,
		Version: version, Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			usage = false
			return f.start(ctx, c, stdout, stderr)
		},
	}
	f.register(c)
	c.MarkFlagsMutuallyExclusive("load", "remove")
	c.SetArgs(args)
	c.SetOut(stdout)
	c.SetErr(stderr)
	err := c.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case usage:
		fmt.Fprintf(stderr, "bailiffd: %v: see bailiffd --help\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "bailiffd: %v\n", err)
	return 1
}

func (f *flags) register(c *cobra.Command) {
	d := daemon.Defaults()
	p := c.Flags()
	p.StringVar(&f.config, "config", daemon.DefaultConfig, "configuration file")
	p.StringVar(&f.format, "log-format", "text", "format of the daemon's own log: text or json")
	p.StringVar(&f.level, "log-level", "info", "least level of the daemon's own log: debug, info, warn, error")
	p.BoolVar(&f.load, "load", false, "put the kernel programs and the stored policies in force, and exit: for the boot, before bailiffd serves")
	p.BoolVar(&f.remove, "remove", false, "take all of Bailiff's programs and cgroups off this host, and exit")
	p.StringVar(&f.over.StateDir, "state-dir", d.StateDir, "policies, sessions and the event log")
	p.StringVar(&f.over.RunDir, "run-dir", d.RunDir, "where admin.sock and agent.sock are")
	p.StringVar(&f.over.PinDir, "pin-dir", d.PinDir, "directory on bpffs that keeps the kernel programs")
	p.StringVar(&f.over.Cgroup, "cgroup", d.Cgroup, "cgroup, below the cgroup v2 root, that holds the sessions'")
	p.StringVar(&f.over.Metrics, "metrics", d.Metrics, "loopback address of the metrics, or off")
	p.StringVar(&f.over.Tier, "tier", d.Tier, "auto, full or basic")
	p.StringVar(&f.over.AdminGroup, "admin-group", d.AdminGroup, "group whose members may administer")
}

// configuration joins the file and the flags that were given.
func (f *flags) configuration(c *cobra.Command) (daemon.Config, error) {
	config, err := daemon.LoadConfig(f.config)
	if err != nil {
		return config, err
	}
	for name, field := range map[string]struct{ to, from *string }{
		"state-dir": {&config.StateDir, &f.over.StateDir}, "run-dir": {&config.RunDir, &f.over.RunDir},
		"pin-dir": {&config.PinDir, &f.over.PinDir}, "cgroup": {&config.Cgroup, &f.over.Cgroup},
		"metrics": {&config.Metrics, &f.over.Metrics}, "tier": {&config.Tier, &f.over.Tier},
		"admin-group": {&config.AdminGroup, &f.over.AdminGroup},
	} {
		if c.Flags().Changed(name) {
			*field.to = *field.from
		}
	}
	return config, nil
}

func (f *flags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: it is one of debug, info, warn, error", f.level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: it is text or json", f.format)
}

func plural(sessions int) string {
	if sessions == 1 {
		return "1 session was"
	}
	return fmt.Sprintf("%d sessions were", sessions)
}

func (f *flags) start(ctx context.Context, c *cobra.Command, stdout, stderr io.Writer) error {
	config, err := f.configuration(c)
	if err != nil {
		return err
	}
	log, err := f.logger(stderr)
	if err != nil {
		return err
	}
	if f.remove {
		sessions, err := daemon.Remove(config)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "removed; %s ended\n", plural(sessions))
		return nil
	}
	manager, err := systemd.FromEnvironment()
	if err != nil {
		return err
	}
	o := daemon.Options{Config: config, ConfigFile: f.config, Version: version, Log: log, Manager: manager}
	if f.load {
		generation, err := daemon.Load(o)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "loaded; generation %d is in force\n", generation)
		return nil
	}
	d, err := daemon.New(o)
	if err != nil {
		return err
	}
	return d.Run(ctx)
}
