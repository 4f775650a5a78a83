// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// State is a unit as systemd has it (org.freedesktop.systemd1(5)).
type State struct {
	Name     string
	Load     string    // LoadState: loaded, not-found, masked or what is wrong
	Enabled  bool      // something starts it at boot
	Active   string    // ActiveState
	Sub      string    // SubState: auto-restart while it waits for its next start
	Result   string    // of its last end
	Restarts uint32    // that nobody asked for, since somebody did
	Since    time.Time // when it became active
	Stale    bool      // NeedDaemonReload: its files are newer than what systemd has read
	Writable []string  // ReadWritePaths
	PID      uint32    // of its main process, 0 for none
}

// States asks for units. There are none where systemd does not run.
func States(ctx context.Context, names []string) ([]State, error) {
	if !booted() {
		return nil, nil
	}
	bus, err := connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	defer bus.Close()
	var all []State
	for _, name := range names {
		properties, err := bus.GetAllPropertiesContext(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("unit %s: %w", name, err)
		}
		all = append(all, stateOf(name, properties))
	}
	return all, nil
}

func stateOf(name string, properties map[string]any) State {
	text := func(key string) string { value, _ := properties[key].(string); return value }
	list := func(key string) []string { value, _ := properties[key].([]string); return value }
	s := State{
		Name: name, Load: text("LoadState"), Active: text("ActiveState"), Sub: text("SubState"), Result: text("Result"),
		Enabled:  strings.HasPrefix(text("UnitFileState"), "enabled") || len(list("WantedBy")) > 0 || len(list("RequiredBy")) > 0,
		Stale:    properties["NeedDaemonReload"] == true,
		Writable: pathsOf(list("ReadWritePaths")),
	}
	s.Restarts, _ = properties["NRestarts"].(uint32)
	s.PID, _ = properties["MainPID"].(uint32)
	if microseconds, _ := properties["ActiveEnterTimestamp"].(uint64); microseconds > 0 {
		s.Since = time.UnixMicro(int64(microseconds))
	}
	return s
}
