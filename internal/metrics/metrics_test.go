// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/alarm"
)

var noon = time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC)

// observed is a host with something to say of everything.
func observed() agent.State {
	s := &agent.Status{Record: agent.Record{
		LastAttempt: noon.Add(-time.Hour), LastSuccess: noon.Add(-2 * time.Hour), Clock: &agent.Clock{Offset: -2 * time.Second},
	}, NextRenewal: noon.Add(time.Hour), HeldUntil: noon.Add(3 * time.Hour)}
	s.Certificates = []agent.Certificate{
		{Certificate: install.Certificate{Name: "verifier", Serial: "01", NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(23 * time.Hour)}},
		{Certificate: install.Certificate{Name: "tenant", Serial: "02", NotBefore: noon, NotAfter: noon.Add(24 * time.Hour), NotGiven: true}, Key: agent.KeyStatus{NotGiven: true}},
		{Certificate: install.Certificate{Name: "absent"}},
	}
	return agent.State{
		Time: noon, Status: s, Served: map[string]bool{"verifier": false}, TPM: &host.Condition{FailedTries: 3, MaxTries: 31},
		Alarms: []agent.Alarm{{Kind: agent.AlarmServed, Level: alarm.Warning, Certificate: "verifier"}, {Kind: agent.AlarmServed, Level: alarm.Info}},
	}
}

// families reads the text as a server does.
func families(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	text, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	found, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return found
}

// wantLines looks for whole lines of the text.
func wantLines(t *testing.T, m *Metrics, lines ...string) {
	t.Helper()
	text, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	have := strings.Split(string(text), "\n")
	for _, line := range lines {
		if !slices.Contains(have, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
}

func TestStateIsShown(t *testing.T) {
	m := New("v1.2.3", "", slog.New(slog.DiscardHandler))
	m.Observed(observed())
	wantLines(t, m,
		`omen_certificate_not_after_timestamp_seconds{certificate="verifier"} 1.7874828e+09`,
		`omen_certificate_not_before_timestamp_seconds{certificate="tenant"} 1.7874e+09`,
		`omen_certificate_key_given_out{certificate="verifier"} 1`,
		`omen_certificate_key_given_out{certificate="tenant"} 0`,
		`omen_certificate_served{certificate="verifier"} 0`,
		`omen_set_unproven 0`,
		`omen_alarm_level{kind="served"} 2`, `omen_alarm_level{kind="clock"} 0`,
		`omen_last_attempt_timestamp_seconds 1.7873964e+09`, `omen_last_success_timestamp_seconds 1.7873928e+09`,
		`omen_next_renewal_timestamp_seconds 1.7874108e+09`, `omen_held_until_timestamp_seconds 1.7874108e+09`,
		`omen_observed_timestamp_seconds 1.7874e+09`, `omen_clock_offset_seconds -2`,
		`omen_tpm_lockout_failures 3`, `omen_tpm_lockout_failures_max 31`, `omen_tpm_locked_out 0`,
	)
	if text, err := m.Text(); err != nil || bytes.Contains(text, []byte("absent")) {
		t.Errorf("a certificate that is not installed has figures: %s", text)
	}
	if family := families(t, m)["omen_build_info"]; family == nil || !strings.Contains(family.String(), "v1.2.3") {
		t.Errorf("%v", family)
	}
}

// What is not known is not shown as zero.
func TestUnknownIsAbsent(t *testing.T) {
	m := New("v", "", slog.New(slog.DiscardHandler))
	before := families(t, m)
	s := observed()
	s.TPM, s.Status.Clock, s.Status.LastSuccess = nil, nil, time.Time{}
	m.Observed(s)
	after := families(t, m)
	for _, name := range []string{"omen_tpm_lockout_failures", "omen_tpm_locked_out", "omen_clock_offset_seconds", "omen_last_success_timestamp_seconds"} {
		if before[name] != nil || after[name] != nil {
			t.Errorf("%s is shown", name)
		}
	}
	if before["omen_observed_timestamp_seconds"] != nil || after["omen_observed_timestamp_seconds"] == nil {
		t.Error("when it was observed")
	}
}

func TestAttemptsAreCounted(t *testing.T) {
	m := New("v", "", slog.New(slog.DiscardHandler))
	wantLines(t, m, `omen_renewals_total{result="success",step="probe"} 0`, `omen_renewals_total{result="refused",step="login"} 0`, `omen_attestation_refused_total{rule="clone"} 0`)
	spent := map[agent.Step]time.Duration{agent.StepTPM: 1500 * time.Millisecond}
	for range 2 {
		m.Attempted(agent.Attempt{Result: agent.RenewalSucceeded, Step: agent.StepProbe, Spent: spent, Commands: map[string]int{"Quote": 1, "NV_Read": 4}})
	}
	m.Attempted(agent.Attempt{Result: agent.RenewalRefused, Step: agent.StepLogin, Rule: attest.RuleBootPolicy})
	m.Attempted(agent.Attempt{Result: agent.RenewalFailed})
	wantLines(t, m,
		`omen_renewals_total{result="success",step="probe"} 2`, `omen_renewals_total{result="refused",step="login"} 1`, `omen_renewals_total{result="failed",step="none"} 1`,
		`omen_attestation_refused_total{rule="boot-policy"} 1`, `omen_renewal_duration_seconds{step="tpm"} 1.5`,
		`omen_tpm_commands_total{command="Quote"} 2`, `omen_tpm_commands_total{command="NV_Read"} 8`)
}

// TestServersMakeNoSeries: whatever word a server refuses by, there is one more
// series at most, and the word is nowhere.
func TestServersMakeNoSeries(t *testing.T) {
	m := New("v", "", slog.New(slog.DiscardHandler))
	before := len(families(t, m)["omen_attestation_refused_total"].Metric)
	for _, word := range []attest.Rule{"all-is-lost", "x", "boot-policy-2"} {
		m.Attempted(agent.Attempt{Result: agent.RenewalRefused, Step: agent.StepLogin, Rule: word})
	}
	wantLines(t, m, `omen_attestation_refused_total{rule="other"} 3`)
	if after := len(families(t, m)["omen_attestation_refused_total"].Metric); after != before+1 || before != len(attest.Rules()) {
		t.Errorf("%d series, before %d", after, before)
	}
}

// Who asks while something is heard gets a whole answer.
func TestAskedWhileHearing(t *testing.T) {
	m := New("v", "", slog.New(slog.DiscardHandler))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				m.Observed(observed())
				m.Attempted(agent.Attempt{Result: agent.RenewalSucceeded, Step: agent.StepProbe})
				if _, err := m.Text(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantLines(t, m, `omen_renewals_total{result="success",step="probe"} 80`)
}

// TestFamilies: what the list says is what a server reads, and nothing else is.
func TestFamilies(t *testing.T) {
	m := New("v", "", slog.New(slog.DiscardHandler))
	m.Observed(observed())
	m.Attempted(agent.Attempt{Result: agent.RenewalSucceeded, Step: agent.StepProbe, Spent: map[agent.Step]time.Duration{agent.StepTPM: 1}, Commands: map[string]int{"Quote": 1}})
	found := families(t, m)
	for _, family := range Families() {
		got := found[family.Name]
		if got == nil || strings.ToLower(got.GetType().String()) != string(family.Type) || got.GetHelp() != family.Help {
			t.Errorf("%+v: %v", family, got)
			continue
		}
		var labels []string
		for _, label := range got.Metric[0].Label {
			labels = append(labels, label.GetName())
		}
		if want := slices.Sorted(slices.Values(family.Labels)); !slices.Equal(labels, want) {
			t.Errorf("%s: labels %v, not %v", family.Name, labels, want)
		}
	}
	if len(found) != len(Families()) {
		t.Errorf("%d families, %d in the list", len(found), len(Families()))
	}
}
