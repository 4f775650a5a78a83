// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"funlab.casa/omen/internal/agent"
)

// statusText tells people how this host is: what is urgent first.
func statusText(p page, s *agent.Status, now time.Time) {
	p.level(s.Level)
	for _, a := range s.Alarms {
		p.row("", alarmText(a))
	}
	if s.Host != "" {
		p.row("host", s.Host)
	}
	if s.Generation >= 0 {
		p.row("generation", strconv.Itoa(s.Generation))
	}
	if s.Unproven {
		p.row("NOT PROVEN", "its installation ended in the middle; renew or roll back")
	}
	for _, d := range s.Damage {
		p.row("CHANGED", d.String()+" by somebody else")
	}
	for _, c := range s.Certificates {
		certificateText(p, c, now)
	}
	readersText(p, s.NoTPMKeys)
	renewalText(p, s, now)
	sinksText(p, s.Sinks, now)
	for _, remark := range s.Remarks {
		p.row("remark", remark)
	}
	failureText(p, s)
}

func alarmText(a agent.Alarm) string {
	if a.Certificate == "" {
		return a.Reason
	}
	return a.Certificate + ": " + a.Reason
}

func certificateText(p page, c agent.Certificate, now time.Time) {
	if c.Serial == "" {
		p.row("certificate", c.Name+" for "+c.Service, "not installed")
		return
	}
	p.row("certificate", c.Name+" for "+c.Service, fmt.Sprintf("until %s, %s", when(c.NotAfter), c.Left(now)), "serial "+c.Serial)
	keyText(p, c.Name, c.Key)
}

func renewalText(p page, s *agent.Status, now time.Time) {
	p.row("last renewal", when(s.LastSuccess))
	next := "now"
	if due := s.Due(); due.After(now) {
		next = fmt.Sprintf("%s, in %s", when(due), agent.Span(due.Sub(now)))
	}
	p.row("next renewal", next)
	if s.HeldUntil.After(now) {
		p.row("held back", fmt.Sprintf("until %s, for %s: a new set was not served; omen-agent renew does not wait", when(s.HeldUntil), agent.Span(s.HeldUntil.Sub(now))))
	}
	if s.Clock != nil && s.Clock.Offset.Abs() > agent.ClockTolerance {
		p.row("clock", fmt.Sprintf("%s, seen %s: set one of them right", s.Clock, when(s.Clock.At)))
	}
}

func failureText(p page, s *agent.Status) {
	if s.Failure == nil {
		return
	}
	p.row("last attempt", fmt.Sprintf("%s failed: %s", when(s.LastAttempt), s.Failure.Message))
	if s.Failure.Remedy != "" {
		p.row("remedy", strings.TrimSuffix(s.Failure.Remedy, "."))
	}
}
