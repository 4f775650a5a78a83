// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/internal/alarm"
)

// AlarmKind is what an alarm is about, in one word.
type AlarmKind string

// The kinds of an [Alarm].
const (
	AlarmExpiry   AlarmKind = "expiry"        // a certificate is near its end
	AlarmMissing  AlarmKind = "not-installed" // a certificate is not there
	AlarmKey      AlarmKind = "key"           // a sealed key is not given out
	AlarmUnproven AlarmKind = "unproven"      // an installation ended in the middle
	AlarmRenewal  AlarmKind = "renewal"       // the last renewal failed, or renewals are held back
	AlarmServed   AlarmKind = "served"        // what is served is not what is installed
	AlarmClock    AlarmKind = "clock"         // this host's clock and the server's differ
	AlarmLockout  AlarmKind = "tpm-lockout"   // the TPM refuses authorisations
)

// AlarmKinds lists all of them.
func AlarmKinds() []AlarmKind {
	return []AlarmKind{AlarmExpiry, AlarmMissing, AlarmKey, AlarmUnproven, AlarmRenewal, AlarmServed, AlarmClock, AlarmLockout}
}

// Alarm is something that somebody should look at.
type Alarm struct {
	Kind        AlarmKind   `json:"kind"`
	Level       alarm.Level `json:"level"`
	Certificate string      `json:"certificate,omitempty"`
	Reason      string      `json:"reason"`
}

// ClockTolerance is how far the clocks of this host and of OpenBao may be apart:
// half of the minute by which certificates are usually dated back.
const ClockTolerance = 30 * time.Second

// alarms are those that a status gives by itself, the most urgent first.
func alarms(s *Status, now time.Time) []Alarm {
	var all []Alarm
	for _, c := range s.Certificates {
		all = append(all, certificateAlarms(c, now)...)
	}
	if s.Unproven {
		all = append(all, Alarm{Kind: AlarmUnproven, Level: alarm.Warning, Reason: "an installation ended in the middle"})
	}
	if s.Failure != nil {
		all = append(all, renewalAlarm(s))
	}
	if s.Clock != nil && s.Clock.Offset.Abs() > ClockTolerance {
		all = append(all, Alarm{Kind: AlarmClock, Level: alarm.Warning, Reason: s.Clock.String()})
	}
	return mostUrgentFirst(all)
}

func mostUrgentFirst(all []Alarm) []Alarm {
	slices.SortStableFunc(all, func(a, b Alarm) int { return cmp.Compare(b.Level, a.Level) })
	return all
}

// mostUrgent is the level of the most urgent alarm.
func mostUrgent(all []Alarm) alarm.Level {
	level := alarm.None
	for _, one := range all {
		level = max(level, one.Level)
	}
	return level
}

func certificateAlarms(c Certificate, now time.Time) (all []Alarm) {
	if c.Serial == "" {
		return []Alarm{{Kind: AlarmMissing, Level: alarm.Warning, Certificate: c.Name, Reason: "not installed"}}
	}
	level := alarm.Near(c.NotBefore, c.NotAfter, now)
	if c.isRoot() && level == alarm.Info {
		level = alarm.None // years before its end, nothing is due
	}
	if level > alarm.None {
		all = append(all, Alarm{Kind: AlarmExpiry, Level: level, Certificate: c.Name, Reason: c.Left(now)})
	}
	if c.Key.NotGiven {
		all = append(all, Alarm{Kind: AlarmKey, Level: alarm.Warning, Certificate: c.Name, Reason: "its key is not given out since the boot"})
	}
	return all
}

// isRoot: only a root comes without a key.
func (c Certificate) isRoot() bool { return c.Key.Configured == "" }

// Left says how much of its life a certificate has left.
func (c Certificate) Left(now time.Time) string {
	left := c.NotAfter.Sub(now)
	if left <= 0 {
		return "expired " + Span(-left) + " ago"
	}
	return fmt.Sprintf("%s of %s left", Span(left), Span(c.NotAfter.Sub(c.NotBefore)))
}

// renewalAlarm is of a last renewal that failed: urgent where only a person can
// change it, or where services were restarted in vain.
func renewalAlarm(s *Status) Alarm {
	level, reason := alarm.Info, "the last renewal failed"
	switch {
	case !s.HeldUntil.IsZero():
		level, reason = alarm.Warning, "renewals are held back: the new set was not served"
	case s.Failure.Rule != "":
		level, reason = alarm.Warning, "OpenBao refused this host: "+s.Failure.Rule
	case s.Failure.Refused:
		level, reason = alarm.Warning, "OpenBao refused this host at step "+string(s.Failure.Step)
	case s.Failure.Step != "":
		reason += " at step " + string(s.Failure.Step)
	}
	return Alarm{Kind: AlarmRenewal, Level: level, Reason: reason}
}

// Span writes a duration as people do, in its two largest units.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = d.Round(time.Second); {
	case d >= 3*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
