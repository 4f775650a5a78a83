// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"golang.org/x/sync/semaphore"

	"funlab.casa/omen/internal/alarm"
)

// memory is what an agent knows beside its configuration, and what the agent of the
// next configuration goes on with.
type memory struct {
	turn     *semaphore.Weighted    // of the loops of this process; nil where there is one
	alarmed  map[raised]alarm.Level // at the last observation
	unserved map[string]time.Time   // certificates that are not served, and since when
	answered map[need]time.Time     // when a renewal was last made for what a look found
	failed   []string               // certificates of the sets that could not be installed, or were not served
	failedOf string                 // the configuration under which they failed, see fingerprint
}

// Succeed goes on where the agent of the configuration before stopped: what it has
// told is not told again, what it was renewed for is not renewed for again, and no two of
// them open the TPM at once.
func (a *Agent) Succeed(before *Agent) { a.memory = before.memory }
