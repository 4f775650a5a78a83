// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"time"

	"funlab.casa/omen/internal/agent"
)

// tell says where the host stands: each change in the log, and the line in systemctl
// status.
func (d *Daemon) tell(status *agent.Status, next, now time.Time) {
	line := d.line(status, next, now)
	if line == d.told {
		return
	}
	d.told = line
	d.Supervisor.Status(line)
	d.Log.Info(line)
}

func (d *Daemon) line(status *agent.Status, next, now time.Time) string {
	until := "nothing is installed"
	if first := status.FirstEnd(); !first.IsZero() {
		until = "certificates until " + first.UTC().Format(time.RFC3339)
	}
	switch {
	case !status.Early(now).IsZero():
		return fmt.Sprintf("waiting for the clock: it shows %s, before an installed certificate was made", now.UTC().Format(time.RFC3339))
	case !next.After(now):
		return until + "; renewing now"
	case status.HeldUntil.Equal(next):
		return fmt.Sprintf("%s; the last new ones were not served, trying again at %s", until, next.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("%s; next renewal at %s", until, next.UTC().Format(time.RFC3339))
}
