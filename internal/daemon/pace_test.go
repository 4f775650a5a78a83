// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/bao"
)

// TestFailuresAreEvents: operators find each way to fail by its MESSAGE_ID.
func TestFailuresAreEvents(t *testing.T) {
	refused := func(rule attest.Rule) error {
		return &agent.StepError{Step: agent.StepLogin, Err: &bao.Error{Op: "login", Kind: bao.KindRefused, Rule: rule}}
	}
	for event, failures := range map[agent.Event][]error{
		agent.EventFailed:    {&agent.StepError{Step: agent.StepTPM, Err: errors.New("busy")}, &bao.Error{Kind: bao.KindUnreachable}},
		agent.EventRefused:   {refused(attest.RulePending), refused(attest.RuleBootPolicy)},
		agent.EventNotServed: {&agent.StepError{Step: agent.StepProbe, Err: errors.New("another leaf"), RolledBack: true}},
	} {
		for _, err := range failures {
			var text bytes.Buffer
			newPace(renewalFailed, hint).failed(slog.New(slog.NewTextHandler(&text, nil)), err, time.Hour)
			if !strings.Contains(text.String(), " event="+string(event)+"\n") {
				t.Errorf("%v: %s", err, text.String())
			}
		}
	}
}
