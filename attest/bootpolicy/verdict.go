// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"fmt"
	"time"

	"funlab.casa/omen/attest"
)

// maxFindings bounds the findings of one check.
const maxFindings = 16

// Verdict is a policy's answer. The zero Verdict refuses.
type Verdict struct {
	Accepted bool `json:"accepted"`
	// Until ends the verdict: some entry that it rests on expires then. Zero: none
	// does, and only another policy or state can change it.
	Until time.Time `json:"until,omitzero"`
	// Findings say what is not as it should be, of enforced and of monitored checks.
	Findings []Finding `json:"findings,omitempty"`
	// WouldRefuse lists the monitored checks that failed.
	WouldRefuse []Check `json:"would_refuse,omitempty"`
}

// Finding is one thing that is not as the policy wants it. It holds nothing that
// the host wrote but a component's name, which is printable ASCII.
type Finding struct {
	Check     Check       `json:"check"`
	Mode      Mode        `json:"mode"`                // Monitor or Enforce
	Rule      attest.Rule `json:"rule"`                // what an enforced check refuses with
	PCR       *int        `json:"pcr,omitempty"`       // when it is about one
	Event     int         `json:"event,omitempty"`     // index in the event log; 0: none
	Component string      `json:"component,omitempty"` // its name, a remark
	Text      string      `json:"text"`                // for an operator
}

// Err is nil for a verdict that accepts, or the *[attest.Refusal] of the first
// enforced finding: boot-policy, or event-log where the log does not prove what
// the policy reads. Its detail is for operators only.
func (v *Verdict) Err() error {
	if v != nil && v.Accepted {
		return nil
	}
	if v != nil {
		for _, f := range v.Findings {
			if f.Mode == Enforce {
				return attest.Refuse(f.Rule, "%s: %s", f.Check, f.Text)
			}
		}
	}
	return attest.Refuse(attest.RuleBootPolicy, "no verdict")
}

// outcome is what one check says: findings, or how long it is content.
type outcome struct {
	findings []Finding
	until    time.Time
}

func (o *outcome) find(f Finding) {
	if f.Rule == "" {
		f.Rule = attest.RuleBootPolicy
	}
	o.findings = append(o.findings, f)
}

// add takes the outcome of a check into the verdict and reports whether the
// check refuses.
func (v *Verdict) add(check Check, mode Mode, o outcome) (refused bool) {
	if len(o.findings) == 0 {
		v.Until = earlier(v.Until, o.until)
		return false
	}
	if mode == Monitor {
		v.WouldRefuse = append(v.WouldRefuse, check)
	}
	if extra := len(o.findings) - maxFindings; extra > 0 {
		rest := Finding{Rule: o.findings[0].Rule, Text: fmt.Sprintf("and %d more", extra)}
		o.findings = append(o.findings[:maxFindings:maxFindings], rest)
	}
	for _, f := range o.findings {
		f.Check, f.Mode = check, mode
		v.Findings = append(v.Findings, f)
	}
	return mode == Enforce
}

// earlier and later compare times of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return a
	}
	return b
}
