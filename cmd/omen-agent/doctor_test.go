// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"funlab.casa/omen/internal/doctor"
)

// The exit code is that of the first problem, and every area has one.
func TestDiagnosis(t *testing.T) {
	want := map[doctor.Area]int{"configuration": 2, "tpm": 5, "server": 4, "login": 3, "issuing": 6, "install": 7, "service": 8}
	for _, c := range doctor.Checks() {
		if want[c.Area] == 0 {
			t.Errorf("%s: area %s has no exit code", c.Name, c.Area)
		}
	}
	for area, code := range want {
		results := []doctor.Result{
			{Status: doctor.OK, Area: doctor.AreaTPM}, {Status: doctor.Warning, Area: doctor.AreaTPM},
			{Status: doctor.Problem, Area: area, Check: "x"}, {Status: doctor.Problem, Area: doctor.AreaService},
		}
		err := diagnosis(results)
		if got := exitCode(err); got != code || err.Error() != "2 problems, the first: x" || hint(err) != "" {
			t.Errorf("%s: %d, %v", area, got, err)
		}
		if err := diagnosis(results[:3]); err.Error() != "1 problem: x" {
			t.Errorf("%s: %v", area, err)
		}
		if err := diagnosis(results[:2]); err != nil {
			t.Errorf("warnings alone: %v", err)
		}
	}
}
