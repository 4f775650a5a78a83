// SPDX-License-Identifier: Apache-2.0

package doctest

import "testing"

// TestInterplayExamples: the agent accepts every table for other programs, beside those
// of a host.
func TestInterplayExamples(t *testing.T) {
	found := tomlBlock.FindAllStringSubmatch(page(t, "docs/interplay.md"), -1)
	if len(found) != 2 {
		t.Fatalf("%d examples", len(found))
	}
	all := examples(t)[0]
	for _, match := range found {
		all += match[1]
	}
	if c := load(t, all); len(c.Sinks) != 1 || c.Sinks[0].Role != "bao-agent" || c.WorkloadAPI.Certificate != "web" || len(c.WorkloadAPI.Users) != 2 {
		t.Errorf("%+v, %+v", c.Sinks, c.WorkloadAPI)
	}
}
