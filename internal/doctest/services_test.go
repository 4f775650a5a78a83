// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"strings"
	"testing"

	"funlab.casa/omen/internal/config"
)

// TestServiceExamples: the agent accepts every example for other programs.
func TestServiceExamples(t *testing.T) {
	head, _, _ := strings.Cut(examples(t)[0], "[[certificate]]")
	found := tomlBlock.FindAllStringSubmatch(page(t, "docs/services.md"), -1)
	if len(found) < 5 {
		t.Fatalf("%d examples", len(found))
	}
	for _, match := range found {
		if c := load(t, head+match[1]); c.Certificates[0].Profile != config.General {
			t.Errorf("profile %s in\n%s", c.Certificates[0].Profile, match[1])
		}
	}
}
