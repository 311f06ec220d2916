// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"time"
)

var errNotReading = errors.New("nobody reads the kernel's events")

// tellManager tells the service manager, if there is one, how the daemon is.
func (d *Daemon) tellManager(assignments ...string) {
	if err := d.o.Manager.Tell(assignments...); err != nil {
		d.log.Warn("the service manager may take bailiffd for dead", "error", err)
	}
}

// watchdog tells the service manager that the daemon works, as long as it does. One
// that hangs is killed and started again: what is in force stays in force.
func (d *Daemon) watchdog(ctx context.Context) {
	interval := d.o.Manager.Watchdog()
	if interval == 0 {
		return
	}
	for tick := time.NewTicker(interval / 3); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if err := d.works(); err != nil {
			d.log.Error("the service manager is not told that bailiffd works", "error", err)
			continue
		}
		d.tellManager("WATCHDOG=1")
	}
}

// works goes once through what every request needs. It does not return where
// somebody holds a lock for ever.
func (d *Daemon) works() error {
	if !d.reading.Load() {
		return errNotReading
	}
	d.policies.forAgent("")
	d.sessions.list(false)
	_, err := d.kernel.Generation()
	return err
}
