// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"slices"
	"testing"

	"funlab.casa/omen/internal/doctor"
	"funlab.casa/omen/test/world"
)

// TestDoctor: on the hosts of the story, where all works, the doctor finds no problem
// and looks at everything that there is; what it warns of is what this world is weak in.
func TestDoctor(t *testing.T) {
	ctx, l := shared(t)
	for _, h := range []*world.Host{l.Spire, l.Auth} {
		result := agent(ctx, t, h, "--output", "json", "doctor")
		if result.Code != 0 {
			t.Error(result.Unexpected(h, 0))
		}
		var found []doctor.Result
		must(t, json.Unmarshal([]byte(result.Stdout), &found))
		warned := []string{"tpm-software", "tpm-measurements", "tpm-event-log", "memory"} // the last where the machine swaps
		absent := []string{"spire-server"}
		if h == l.Spire {
			absent = append(absent, "keylime-agent-version")
		}
		for _, r := range found {
			fine := r.Status == doctor.OK || r.Status == doctor.Warning && slices.Contains(warned, r.Check) ||
				r.Status == doctor.NotApplicable && slices.Contains(absent, r.Check)
			if !fine {
				t.Errorf("%s: %+v", h.Name, r)
			}
		}
	}
}
