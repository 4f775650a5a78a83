// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/alarm"
	"funlab.casa/omen/issuer"
)

// TestAlarms bends one thing of a host on which all is well a row.
func TestAlarms(t *testing.T) {
	now := time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		name string
		bend func(*Status)
		want []Alarm
	}{
		{"all is well", func(*Status) {}, nil},
		{"due", func(s *Status) { s.end(now.Add(7 * time.Hour)) }, []Alarm{{AlarmExpiry, alarm.Info, "verifier", "7h00m of 24h00m left"}}},
		{"near its end", func(s *Status) { s.end(now.Add(4 * time.Hour)) }, []Alarm{{AlarmExpiry, alarm.Warning, "verifier", "4h00m of 24h00m left"}}},
		{"at its end", func(s *Status) { s.end(now.Add(90 * time.Second)) }, []Alarm{{AlarmExpiry, alarm.Critical, "verifier", "1m30s of 24h00m left"}}},
		{"expired", func(s *Status) { s.end(now.Add(-80 * time.Hour)) }, []Alarm{{AlarmExpiry, alarm.Critical, "verifier", "expired 3d ago"}}},
		{"a root, due", func(s *Status) { s.Certificates[0].Key = KeyStatus{}; s.end(now.Add(7 * time.Hour)) }, nil},
		{"a root, near its end", func(s *Status) { s.Certificates[0].Key = KeyStatus{}; s.end(now.Add(4 * time.Hour)) },
			[]Alarm{{AlarmExpiry, alarm.Warning, "verifier", "4h00m of 24h00m left"}}},
		{"not installed", func(s *Status) { s.Certificates[0] = Certificate{Certificate: install.Certificate{Name: "verifier"}} },
			[]Alarm{{AlarmMissing, alarm.Warning, "verifier", "not installed"}}},
		{"no key", func(s *Status) { s.Certificates[0].Key.NotGiven = true }, []Alarm{{AlarmKey, alarm.Warning, "verifier", "its key is not given out since the boot"}}},
		{"unproven", func(s *Status) { s.Unproven = true }, []Alarm{{AlarmUnproven, alarm.Warning, "", "an installation ended in the middle"}}},
		{"failed", func(s *Status) { s.Failure = &Failure{Step: StepTPM} }, []Alarm{{AlarmRenewal, alarm.Info, "", "the last renewal failed at step tpm"}}},
		{"refused", func(s *Status) { s.Failure = &Failure{Step: StepLogin, Rule: "boot-policy"} },
			[]Alarm{{AlarmRenewal, alarm.Warning, "", "OpenBao refused this host: boot-policy"}}},
		{"refused by the PKI", func(s *Status) { s.Failure = &Failure{Step: StepSign, Refused: true} },
			[]Alarm{{AlarmRenewal, alarm.Warning, "", "OpenBao refused this host at step sign"}}},
		{"held back", func(s *Status) { s.Failure, s.HeldUntil = &Failure{Step: StepProbe}, now.Add(time.Hour) },
			[]Alarm{{AlarmRenewal, alarm.Warning, "", "renewals are held back: the new set was not served"}}},
		{"clock within bounds", func(s *Status) { s.Clock = &Clock{Offset: -ClockTolerance} }, nil},
		{"clock ahead", func(s *Status) { s.Clock = &Clock{Offset: -2 * time.Minute} }, []Alarm{{AlarmClock, alarm.Warning, "", "this host's clock is 2m00s ahead of OpenBao's"}}},
		{"the most urgent first", func(s *Status) { s.Unproven = true; s.Failure = &Failure{}; s.end(now) },
			[]Alarm{{AlarmExpiry, alarm.Critical, "verifier", "expired 0s ago"}, {AlarmUnproven, alarm.Warning, "", "an installation ended in the middle"},
				{AlarmRenewal, alarm.Info, "", "the last renewal failed"}}},
	} {
		s := &Status{now: now, Certificates: []Certificate{{Certificate: install.Certificate{Name: "verifier", Serial: "01"}, Key: KeyStatus{Configured: issuer.ModeFile}}}}
		s.end(now.Add(23 * time.Hour))
		row.bend(s)
		got := alarms(s, now)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s: %s", row.name, diff)
		}
		want := alarm.None
		if len(row.want) > 0 {
			want = row.want[0].Level
		}
		if level := mostUrgent(got); level != want {
			t.Errorf("%s: %s", row.name, level)
		}
	}
}

// end gives the certificate of a day this end.
func (s *Status) end(at time.Time) {
	s.Certificates[0].NotBefore, s.Certificates[0].NotAfter = at.Add(-24*time.Hour), at
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 59400 * time.Millisecond: "59s", time.Minute: "1m00s", time.Hour - time.Millisecond: "1h00m",
		71*time.Hour + 59*time.Minute: "71h59m", 72 * time.Hour: "3d", 3650 * 24 * time.Hour: "3650d",
	} {
		if got := Span(d); got != want {
			t.Errorf("%s: %s, not %s", d, got, want)
		}
	}
}
