// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"funlab.casa/omen/test/world"
)

// tpmReset: a TPM that loses its power with any command of a renewal, and has it again,
// costs that renewal at most. Where it is answered the TPM has done what it was told, and
// nobody heard. What is prepared before each may make a stranger of the host.
func tpmReset(ctx context.Context, t *testing.T, all []*machine, answered bool, prepare string) {
	for first := 1; ; first += len(all) {
		results := make([]world.Result, len(all))
		var group sync.WaitGroup
		for i, m := range all {
			check(m.Must(ctx, "sh", "-c", prepare))(t)
			m.before = m.state(ctx, t)
			m.lead.arm(loss{number: first + i, answered: answered})
			group.Go(func() { results[i], _ = m.Run(ctx, "/usr/bin/omen-agent", "renew") })
		}
		group.Wait()
		for i, m := range all {
			if !m.lead.vanished() {
				m.wantRenewed(ctx, t)
				return // so many commands there are not
			}
			name := fmt.Sprintf("%d %s", first+i, m.lead.sent()[first+i-1])
			t.Run(name, func(t *testing.T) { m.judgeReset(ctx, t, results[i]) })
		}
	}
}

// What makes no stranger of a host, and what does: its record of the TPM is lost.
const (
	known    = "true"
	stranger = "rm -r " + stateDir + "/state"
)

// judgeReset wants a renewal that is done, or one that says that it is the TPM.
func (m *machine) judgeReset(ctx context.Context, t *testing.T, r world.Result) {
	t.Helper()
	switch r.Code {
	case 0:
		m.wantRenewed(ctx, t)
	case 5:
		t.Log(r.Stderr)
		m.wantFailed(ctx, t, "tpm", "key")
		m.wantNothingLeft(ctx, t)
	default:
		t.Error(r.Unexpected(m.Host, 5))
	}
}

// vanished reports that the loss that was armed has come, and forgets it.
func (d *lead) vanished() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	came := d.armed == nil
	d.armed = nil
	return came
}
