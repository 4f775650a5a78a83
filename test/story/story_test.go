// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"io"
	"testing"
	"time"
)

// playSteps plays steps in a world that ends with the test.
func playSteps(t *testing.T, steps []Step) *Story {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	s := &Story{}
	t.Cleanup(func() {
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, step := range steps {
		told, err := step.Run(ctx, s)
		if err != nil {
			t.Fatalf("%s: %v\n%s", step.Name, err, s.World.Logs(20))
		}
		t.Logf("%s: %s", step.Name, told)
	}
	return s
}

// TestPlayStops: the first thing that goes wrong ends the story.
func TestPlayStops(t *testing.T) {
	after := false
	err := (&Story{}).Play(t.Context(), io.Discard, []Step{
		{"fails", func(context.Context, *Story) (string, error) { return "", context.Canceled }},
		{"after", func(context.Context, *Story) (string, error) { after = true; return "", nil }},
	})
	if err == nil || after {
		t.Errorf("the story went on after an error (%v)", err)
	}
}
