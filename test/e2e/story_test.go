// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"testing"

	"funlab.casa/omen/test/story"
)

// TestStory is the demo, step by step.
func TestStory(t *testing.T) {
	ctx, s := ownStory(t)
	for _, step := range story.Steps() {
		play(ctx, t, s, step)
	}
	for _, h := range s.World.Hosts() {
		if left, err := h.TPM.Leaks(); err != nil || len(left) > 0 {
			t.Errorf("%s: left in the TPM: %v, %v", h.Name, left, err)
		}
	}
}
