// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"regexp"
	"testing"
)

// TestShippedExample: the agent accepts the example in its packages, also with what is
// in comments there.
func TestShippedExample(t *testing.T) {
	example := page(t, "dist/agent.toml")
	commented := regexp.MustCompile(`(?m)^# (\[|[a-z0-9_]+ +=)`)
	if !commented.MatchString(example) {
		t.Error("nothing in comments")
	}
	few, all := load(t, example), load(t, commented.ReplaceAllString(example, "$1"))
	if len(few.Certificates) != 3 || len(all.Certificates) != 4 {
		t.Errorf("%d and %d certificates", len(few.Certificates), len(all.Certificates))
	}
}
