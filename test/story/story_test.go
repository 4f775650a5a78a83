// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"io"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
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

// TestStory is the demo as a test.
func TestStory(t *testing.T) { playSteps(t, Steps()) }

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

// TestFromTheSeed starts where the seed document ends: files edited by hand,
// services running with the configuration of before.
func TestFromTheSeed(t *testing.T) {
	playSteps(t, []Step{
		{"two machines", BuildWorld},
		{"OpenBao", StartOpenBao},
		{"the seed", laySeed},
		{"enrolment", Enrol},
		{"renewal on spire", renewSeedSpire},
		{"renewal on auth", renewSeedAuth},
		{"tenant", TalkAsTenant},
		{"verifier to agent", ReachAgent},
		{"agent's certificate", RefuseServerCertificate},
		{"second renewal", RenewAgain},
	})
}

func laySeed(ctx context.Context, s *Story) (string, error) {
	if _, err := s.World.LaySeed(ctx); err != nil {
		return "", err
	}
	if err := s.Spire.WriteAgentConfig(world.SeedCertificates(world.SpireCertificates())); err != nil {
		return "", err
	}
	return "laid", s.Auth.WriteAgentConfig(world.SeedCertificates(world.AuthCertificates()))
}
