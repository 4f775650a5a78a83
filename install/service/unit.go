// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"time"

	"funlab.casa/omen/install/remedy"
)

// Reload has the unit's service read its files again: by a command, else by a reload
// job, else, where the unit has no way to or does not run, by a restart. Keylime's
// are restarted whatever somebody wrote into their units.
func (u *Unit) Reload(ctx context.Context, how Reload) error {
	if err := how.check(u.name); err != nil {
		return err
	}
	if how.Signal != "" {
		return remedy.Errorf("give the unit an ExecReload=, or name a command", "unit %s: a signal is for what has a pid file and no unit", u.name)
	}
	can, err := u.canReload(ctx)
	if err != nil {
		return err
	}
	if alive := u.Alive(ctx); alive != nil || isKeylime(u.name) || !can && how.IsZero() {
		return u.Restart(ctx)
	}
	if err := u.note(ctx); err != nil {
		return err
	}
	if !how.IsZero() {
		return how.run(ctx)
	}
	return u.job(ctx, "reload", u.bus.ReloadUnitContext)
}

func (u *Unit) canReload(ctx context.Context) (bool, error) {
	property, err := u.bus.GetUnitPropertyContext(ctx, u.name, "CanReload")
	if err != nil {
		return false, fmt.Errorf("unit %s: %w", u.name, err)
	}
	can, _ := property.Value.Value().(bool)
	return can, nil
}

// Since is when the unit's main process was started. Its time is systemd's, by the
// clock of the moment.
func (u *Unit) Since(ctx context.Context) (time.Time, error) {
	if err := u.Alive(ctx); err != nil {
		return time.Time{}, err
	}
	property, err := u.bus.GetServicePropertyContext(ctx, u.name, "ExecMainStartTimestamp")
	if err != nil {
		return time.Time{}, fmt.Errorf("unit %s: %w", u.name, err)
	}
	microseconds, _ := property.Value.Value().(uint64)
	if microseconds == 0 {
		return time.Time{}, fmt.Errorf("unit %s: no time of its start", u.name)
	}
	return time.UnixMicro(int64(microseconds)), nil
}

// ActiveUnits picks the units that are active, or about to be, of those given. Where
// systemd does not run none is.
func ActiveUnits(ctx context.Context, names []string) (active []string, err error) {
	states, err := States(ctx, names)
	for _, s := range states {
		if running(s.Active) || s.Active == "activating" {
			active = append(active, s.Name)
		}
	}
	return active, err
}
