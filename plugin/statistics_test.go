// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"
	"testing"
	"time"

	"funlab.casa/omen/attest"
)

// A TPM that rings all the time does not push the others out.
func TestOneNoisyTPMHidesNoAlarm(t *testing.T) {
	s, err := newStatistics(time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s.raise(alarm{Rule: attest.RuleClone, TPMID: "quiet"})
	for i := range 3 * maxAlarms {
		s.raise(alarm{Rule: attest.RuleTicket, TPMID: "noisy", Detail: fmt.Sprint(i)})
	}
	got := s.data(0)["alarms"].([]map[string]any)
	if len(got) != 2 || got[0]["tpm_id"] != "quiet" || got[1]["times"] != 3*maxAlarms || got[1]["detail"] != fmt.Sprintf("%q", fmt.Sprint(3*maxAlarms-1)) {
		t.Errorf("%v", got)
	}
	for i := range maxAlarms {
		s.raise(alarm{Rule: attest.RuleClone, TPMID: attest.TPMID(fmt.Sprint(i))})
	}
	if got := s.data(0)["alarms"].([]map[string]any); len(got) != maxAlarms || got[0]["tpm_id"] != "0" {
		t.Errorf("%d kept, the first %v", len(got), got[0])
	}
}
