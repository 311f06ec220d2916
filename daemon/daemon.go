// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"bailiff.dev/bailiff/bpf"
	"bailiff.dev/bailiff/internal/audit"
	"bailiff.dev/bailiff/internal/cgroup"
	"bailiff.dev/bailiff/internal/control"
	"bailiff.dev/bailiff/internal/control/v1/controlv1connect"
	"bailiff.dev/bailiff/internal/metrics"
	"bailiff.dev/bailiff/internal/systemd"
	"bailiff.dev/bailiff/policy"
)

// Options are what a daemon is made of.
type Options struct {
	Config     Config
	ConfigFile string // where Config was read from; "": nowhere
	Version    string
	Log        *slog.Logger
	Manager    systemd.Manager // who started bailiffd and wants to hear from it
}

// Daemon is a running bailiffd. Its methods are the handlers of AdminService.
type Daemon struct {
	controlv1connect.UnimplementedAdminServiceHandler

	o          Options
	log        *slog.Logger
	now        func() time.Time
	started    time.Time
	adminGroup int
	launchers  []launcher

	store   *store
	parent  *cgroup.Parent
	watcher *cgroup.Watcher
	lsm     error // why LSM programs can't enforce here; nil: they do
	limited error // why sessions can take all processes; nil: they can't
	kernel  *bpf.Enforcer
	reader  *bpf.Reader
	folds   folds
	audit   *audit.Writer
	metrics *metrics.Metrics

	policies policies
	sessions sessions
	numbers  numbers
	live     live
	grants   *grants
	timer    *bootTimer // of the grants' deadlines
	serving  atomic.Bool

	earlier   earlier
	recording sync.RWMutex      // between a record and what accounts for it; see checkpoint
	unsaved   atomic.Bool       // sessions were recorded that are not saved as that
	change    string            // id of the last record that policies changed
	dropped   map[string]uint64 // events that found the ring full, as far as audit was told of them, by agent
	accounted map[string]uint64 // those of them that an earlier life told of

	reading  atomic.Bool    // readEvents runs
	draining sync.Mutex     // one at a time waits for flushed
	flushed  chan struct{}  // the reader has got as far as it was asked to
	closers  []func() error // last opened first
}

// launcher is a LaunchRule with its names looked up.
type launcher struct {
	gid    int
	agents []string
}

// errTierChosen: the configuration wants the basic tier.
var errTierChosen = errors.New("tier: basic")

// New starts a daemon up to the point where it can serve: what was in force is
// in force again, and the sessions that run are known. On an error what it
// opened is closed; what was pinned before stays in force.
func New(o Options) (*Daemon, error) {
	starting := newDaemon(o)
	if err := starting.steps(
		starting.configure, starting.openStore, starting.openKernel, starting.openLog, starting.openGrants, starting.restore,
	); err != nil {
		return nil, err
	}
	return starting, nil
}

// Load puts the kernel programs and the stored policies in force and leaves it at
// that: what a host does when it boots, before anything can be launched. It returns
// the generation. Sessions and events are left to the daemon.
func Load(o Options) (generation uint64, err error) {
	d := newDaemon(o)
	if err := d.steps(d.configure, d.openStore, d.openKernel, d.restoreRules); err != nil {
		return 0, err
	}
	return d.policies.generation, d.close()
}

func newDaemon(o Options) *Daemon {
	d := &Daemon{o: o, log: o.Log, now: time.Now, started: time.Now(), flushed: make(chan struct{}, 2)}
	d.sessions.byID, d.sessions.byNumber = map[string]*session{}, map[uint64]*session{}
	d.numbers.held = map[string]int{}
	return d
}

// steps goes through the steps of a start, and back where one fails.
func (d *Daemon) steps(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return errors.Join(err, d.close())
		}
	}
	return nil
}

func (d *Daemon) configure() (err error) {
	c := &d.o.Config
	if err := c.check(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("start bailiffd: it needs root: it loads kernel programs and moves processes into cgroups")
	}
	if d.adminGroup, err = groupID(c.AdminGroup); err != nil {
		return err
	}
	for _, rule := range c.Launch {
		l := launcher{}
		if l.gid, err = groupID(rule.Group); err != nil {
			return err
		}
		for _, name := range rule.Agents {
			agent, err := policy.ParseSubject(name)
			if err != nil {
				return fmt.Errorf("check the configuration: launch: agent %q: %w", name, err)
			}
			l.agents = append(l.agents, agent)
		}
		d.launchers = append(d.launchers, l)
	}
	return nil
}

func (d *Daemon) openStore() (err error) {
	if d.store, err = openStore(d.o.Config.StateDir); err != nil {
		return err
	}
	d.closers = append(d.closers, d.store.close)
	return nil
}

// openKernel finds the tier, loads or adopts the programs, and gets ready to
// follow cgroups and mounts.
func (d *Daemon) openKernel() (err error) {
	c := &d.o.Config
	pins, err := claimPins(c.PinDir)
	if err := d.claim(pins, err); err != nil {
		return err
	}
	if d.parent, err = cgroup.Open(c.Cgroup); err != nil {
		return err
	}
	if err := d.claim(claimCgroup(d.parent.Path)); err != nil {
		return err
	}
	if d.limited = d.limitProcesses(); d.limited != nil {
		d.log.Warn("sessions can take all processes that the host can have", "reason", d.limited)
	}
	if d.watcher, err = cgroup.NewWatcher(); err != nil {
		return err
	}
	d.closers = append(d.closers, d.watcher.Close)
	if err := d.chooseTier(); err != nil {
		return err
	}
	options := bpf.Options{
		PinDir: c.PinDir, Cgroup: d.parent.Path, Level: d.parent.Level, Full: d.lsm == nil, Sizes: c.sizes(),
		Version: d.o.Version, Ready: d.checkStored,
		Tell: bpf.Tell{Rate: c.Log.Rate, Burst: c.Log.Burst},
	}
	if d.kernel, err = bpf.Load(options); err != nil {
		return err
	}
	d.closers = append(d.closers, d.kernel.Close)
	if pins == nil { // Load made the directory
		if err := d.claim(claimPins(c.PinDir)); err != nil {
			return err
		}
	}
	if d.reader, err = d.kernel.NewReader(); err != nil {
		return err
	}
	d.closers = append(d.closers, d.reader.Close)
	d.metrics = metrics.New(metrics.Build{Version: d.o.Version, Tier: d.tier()}, d.snapshot)
	d.log.Info("kernel programs in force", "tier", d.tier(), "adopted", d.kernel.Adopted(), "build", bpf.Digest(d.o.Version))
	if before := d.kernel.Replaced(); before != "" {
		d.log.Info("this build's kernel programs have taken over", "from", before)
	}
	for _, note := range d.kernel.Notes() {
		d.log.Warn(note)
	}
	if d.lsm != nil {
		d.log.Warn("basic tier: not all of a policy can be enforced on this host", "reason", d.lsm)
	}
	return nil
}

// limitProcesses keeps sessions that fork without end from taking what the daemon
// and the rest of the host need. No session has more than half of what all have.
func (d *Daemon) limitProcesses() error {
	all := int(d.o.Config.MaxProcesses)
	if all == 0 {
		most, err := cgroup.HostProcesses()
		if err != nil {
			return err
		}
		all = most / 4 * 3
	}
	return d.parent.LimitProcesses(all, max(all/2, 1))
}

// chooseTier finds out whether LSM programs enforce here. Only what the kernel lacks
// is a reason to do with less: a host must not come up half confined, and stay so,
// because of something that went wrong in a moment of its boot.
func (d *Daemon) chooseTier() error {
	c := &d.o.Config
	switch {
	case c.Tier == "basic":
		d.lsm = errTierChosen
		return nil
	case bpf.PinnedFull(c.PinDir): // the canary tells whether they enforce
		if err := bpf.CheckNamespace(); err != nil {
			return fmt.Errorf("start bailiffd: %w", err)
		}
		return nil
	}
	d.lsm = bpf.ProbeLSM()
	switch {
	case d.lsm == nil:
		return nil
	case c.Tier == "full":
		return fmt.Errorf("start bailiffd: the configuration says tier: full, but %w", d.lsm)
	case !bpf.Lacking(d.lsm):
		return fmt.Errorf("start bailiffd: find out whether LSM programs enforce here: %w (tier: basic in the configuration does without them)", d.lsm)
	}
	return nil
}

// claim keeps what was claimed for the daemon's life.
func (d *Daemon) claim(f *os.File, err error) error {
	if f != nil {
		d.closers = append(d.closers, f.Close)
	}
	return err
}

func (d *Daemon) openLog() (err error) {
	c := &d.o.Config
	d.audit, err = audit.Open(audit.Options{
		Dir: audit.Directory(c.StateDir), Group: d.adminGroup,
		MaxBytes: c.Log.MaxBytes, Keep: c.Log.Keep, Queue: c.Log.Queue, Log: d.log,
		Lost:  func(x audit.Loss) { d.metrics.Drop(x.Agent, string(x.Stage), x.Count) },
		Wrote: func(n int) { d.metrics.LogBytes.Add(float64(n)) },
		Written: func(position uint64) {
			if err := d.reader.Commit(position); err != nil {
				d.log.Error("the log has events that stay in the ring", "error", err)
			}
		},
		Span: min(ringSpan, d.reader.Size()/8),
	})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.audit.Close)
	return d.recall()
}

// ringSpan is how many bytes of events may wait for the log before it is written
// without delay. While they wait they fill the ring, and of a ring with more in it
// than RING_WAKE (abi.h) every allowed act wakes the reader.
const ringSpan = 64 << 10

// openGrants makes the table of grants, which is empty until restore.
func (d *Daemon) openGrants() (err error) {
	id, err := bootID()
	if err != nil {
		return err
	}
	if d.timer, err = newBootTimer(); err != nil {
		return err
	}
	d.closers = append(d.closers, d.timer.close)
	d.grants = &grants{
		kernel: d.kernel, store: d.store, log: d.log, metrics: d.metrics, record: d.recordAll, told: d.earlier.hasGrant, now: d.now,
		boot: bpf.BootTime, bootID: id, arm: d.armTimer, live: d.sessions.running, cut: d.cut, drain: d.drain,
		byID: map[string]*grant{}, byNumber: map[uint32][]*grant{},
	}
	return nil
}

// restore puts the stored policies in force and takes up the sessions.
func (d *Daemon) restore() error {
	if err := d.restoreRules(); err != nil {
		return err
	}
	if err := d.recordGap(); err != nil {
		return err
	}
	d.recordChange()
	if err := d.clearCanary(); err != nil {
		return fmt.Errorf("clear what an earlier canary left: %w", err)
	}
	if err := d.restoreSessions(); err != nil {
		return fmt.Errorf("restore the sessions: %w", err)
	}
	if err := d.grants.restore(d.kernel.Adopted(), d.sessions.find); err != nil {
		return fmt.Errorf("restore the grants: %w", err)
	}
	fields := map[string]string{"version": d.o.Version, "tier": d.tier(), "adopted": fmt.Sprint(d.kernel.Adopted())}
	if before := d.kernel.Replaced(); before != "" {
		fields["replaced"] = filepath.Base(before)
	}
	d.audit.Write(audit.Event{Kind: audit.System, Message: "bailiffd started", Generation: d.policies.generation, Fields: fields})
	d.audit.Flush()
	d.earlier.tail = audit.Tail{} // all of it is accounted for
	return d.checkpoint(false)
}

// Run serves until ctx is done, then closes the daemon. Enforcement goes on.
func (d *Daemon) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := d.followMounts(ctx); err != nil {
		return err
	}
	failed := make(chan error, 8)
	events := make(chan struct{})
	go func() { defer close(events); d.readEvents() }()
	watched := make(chan struct{})
	go func() { defer close(watched); failed <- d.watcher.Run(d.checkSession) }()
	swept := make(chan struct{})
	go func() { defer close(swept); failed <- d.sweepGrants() }()
	go d.followDrops(ctx)
	go d.beat(ctx)
	defer d.startCanary(ctx)() // before all that it needs is closed
	servers, err := d.listen()
	if err != nil {
		return err
	}
	for _, s := range servers {
		go func() { failed <- s.Serve() }()
	}
	go d.retire()
	d.serving.Store(true)
	d.tellManager("READY=1", "STATUS=enforcing on the "+d.tier()+" tier")
	go d.watchdog(ctx)
	d.log.Info("bailiffd serves", "admin", d.socket("admin.sock"), "agent", d.socket("agent.sock"), "generation", d.policies.generation)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	d.serving.Store(false)
	d.tellManager("STOPPING=1", "STATUS=what is in force stays in force")
	grace, stop := context.WithTimeout(context.Background(), shutdownTimeout)
	defer stop()
	for _, s := range servers {
		err = errors.Join(err, s.Shutdown(grace))
	}
	err = errors.Join(err, d.watcher.Close())
	err = errors.Join(err, d.timer.close())
	<-watched // it ends sessions, which needs all the rest
	<-swept   // the same of grants
	d.drain()
	err = errors.Join(err, d.reader.Stop())
	<-events
	d.audit.Write(audit.Event{Kind: audit.System, Message: "bailiffd stopped", Fields: map[string]string{
		"sessions": fmt.Sprint(len(d.sessions.list(false))),
	}})
	d.audit.Flush()
	return errors.Join(err, d.checkpoint(true))
}

// retire takes what this build's programs have replaced off the hooks, while the
// daemon serves. If it is interrupted, the next daemon does it.
func (d *Daemon) retire() {
	if !d.kernel.Retiring() {
		return
	}
	began := time.Now()
	if err := d.kernel.Retire(); err != nil {
		d.log.Warn("kernel programs that were replaced stay attached, and cost time: the next start removes them", "error", err)
		return
	}
	d.log.Info("the kernel programs that were replaced are gone", "took", time.Since(began).Round(time.Millisecond))
}

func (d *Daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		if err := d.closers[i](); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	d.closers = nil
	return errors.Join(errs...)
}

func (d *Daemon) socket(name string) string { return filepath.Join(d.o.Config.RunDir, name) }

// server is one of the daemon's listeners.
type server interface {
	Serve() error
	Shutdown(context.Context) error
}

func (d *Daemon) listen() (servers []server, err error) {
	defer func() {
		if err != nil {
			for _, s := range servers {
				err = errors.Join(err, s.Shutdown(context.Background()))
			}
		}
	}()
	mode := os.FileMode(0o660)
	if len(d.launchers) > 0 {
		mode = 0o666 // each request says who asks; see guard
	}
	path, handler := controlv1connect.NewAdminServiceHandler(d,
		append(control.HandlerOptions(control.MaxAdminMessage, d.log), connect.WithInterceptors(d.guard()))...)
	admin, err := d.listenUnix("admin.sock", mode, path, handler, d.adminGroup)
	if err != nil {
		return servers, err
	}
	servers = append(servers, admin)
	path, handler = controlv1connect.NewAgentServiceHandler(agentService{d}, control.HandlerOptions(control.MaxAgentMessage, d.log)...)
	agent, err := d.listenUnix("agent.sock", 0o666, path, handler, -1)
	if err != nil {
		return servers, err
	}
	servers = append(servers, agent)
	if d.o.Config.Metrics == "off" {
		return servers, nil
	}
	m, err := metrics.Listen(metrics.ServerOptions{Address: d.o.Config.Metrics, Ready: d.ready, Gatherer: d.metrics.Registry})
	if err != nil {
		return servers, fmt.Errorf("%w (`metrics` in the configuration names another address, or off)", err)
	}
	return append(servers, m), nil
}

func (d *Daemon) listenUnix(name string, mode os.FileMode, path string, h http.Handler, group int) (server, error) {
	l, err := control.Listen(control.ListenOptions{Path: d.socket(name), Mode: mode, Group: group, Log: d.log})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(path, h)
	return control.NewServer(l, mux, d.log), nil
}
