// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/alarm"
)

// gauges are read from what was heard last when somebody asks, so that no answer
// is half of one time and half of another.
type gauges struct{ metrics *Metrics }

// A gauge is one family of them. It emits nothing where nothing is known.
type gauge struct {
	Family
	read func(*Metrics, emit)
}

// emit takes a value and those of the labels.
type emit func(value float64, labels ...string)

var read = []gauge{
	{Family{"omen_certificate_not_before_timestamp_seconds", Gauge, "From when an installed certificate is valid.", []string{"certificate"}},
		ofCertificates(func(c agent.Certificate) float64 { return seconds(c.NotBefore) })},
	{Family{"omen_certificate_not_after_timestamp_seconds", Gauge, "Until when an installed certificate is valid.", []string{"certificate"}},
		ofCertificates(func(c agent.Certificate) float64 { return seconds(c.NotAfter) })},
	{Family{"omen_certificate_key_given_out", Gauge, "1 when the key of a certificate is where its service reads it, 0 when it is sealed.", []string{"certificate"}},
		ofCertificates(func(c agent.Certificate) float64 { return truth(!c.Key.NotGiven) })},
	{Family{"omen_certificate_served", Gauge, "1 when what is served is what is installed, of the certificates that a service listens with.", []string{"certificate"}}, served},
	{Family{"omen_set_unproven", Gauge, "1 when an installation ended in the middle.", nil},
		ofState(func(s *agent.State, e emit) { e(truth(s.Status.Unproven)) })},
	{Family{"omen_alarm_level", Gauge, "The most urgent alarm of a kind: 0 none, 1 info, 2 warning, 3 critical.", []string{"kind"}}, alarmLevels},
	{Family{"omen_last_attempt_timestamp_seconds", Gauge, "When a renewal ended last, whatever came of it.", nil},
		ofState(func(s *agent.State, e emit) { e.time(s.Status.LastAttempt) })},
	{Family{"omen_last_success_timestamp_seconds", Gauge, "When a renewal succeeded last.", nil},
		ofState(func(s *agent.State, e emit) { e.time(s.Status.LastSuccess) })},
	{Family{"omen_next_renewal_timestamp_seconds", Gauge, "When the next renewal is due; in the past: now.", nil},
		ofState(func(s *agent.State, e emit) { e(max(0, seconds(s.Status.Due()))) })},
	{Family{"omen_held_until_timestamp_seconds", Gauge, "Until when renewals are held back because a new set was not served; 0: they are not.", nil},
		ofState(func(s *agent.State, e emit) { e(max(0, seconds(s.Status.HeldUntil))) })},
	{Family{"omen_observed_timestamp_seconds", Gauge, "When the agent observed this host last; every ten minutes while it runs.", nil},
		ofState(func(s *agent.State, e emit) { e.time(s.Time) })},
	{Family{"omen_clock_offset_seconds", Gauge, "OpenBao's clock minus this host's, as its last answer showed it.", nil}, clockOffset},
	{Family{"omen_tpm_lockout_failures", Gauge, "Failed authorisations that the TPM counts, of all programs.", nil},
		ofTPM(func(s *agent.State, e emit) { e(float64(s.TPM.FailedTries)) })},
	{Family{"omen_tpm_lockout_failures_max", Gauge, "Failed authorisations at which the TPM refuses more.", nil},
		ofTPM(func(s *agent.State, e emit) { e(float64(s.TPM.MaxTries)) })},
	{Family{"omen_tpm_locked_out", Gauge, "1 when the TPM refuses authorisations.", nil},
		ofTPM(func(s *agent.State, e emit) { e(truth(s.TPM.LockedOut)) })},
}

func (f Family) desc() *prometheus.Desc { return prometheus.NewDesc(f.Name, f.Help, f.Labels, nil) }

// Describe is of prometheus.Collector.
func (gauges) Describe(out chan<- *prometheus.Desc) {
	for _, g := range read {
		out <- g.desc()
	}
}

// Collect is of prometheus.Collector.
func (g gauges) Collect(out chan<- prometheus.Metric) {
	g.metrics.mutex.Lock()
	defer g.metrics.mutex.Unlock()
	for _, one := range read {
		one.read(g.metrics, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(one.desc(), prometheus.GaugeValue, value, labels...)
		})
	}
}

func (e emit) time(t time.Time) {
	if !t.IsZero() {
		e(seconds(t))
	}
}

// seconds since the epoch, as Prometheus counts time.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func ofState(read func(*agent.State, emit)) func(*Metrics, emit) {
	return func(m *Metrics, e emit) {
		if m.state != nil {
			read(m.state, e)
		}
	}
}

func ofTPM(read func(*agent.State, emit)) func(*Metrics, emit) {
	return ofState(func(s *agent.State, e emit) {
		if s.TPM != nil {
			read(s, e)
		}
	})
}

func ofCertificates(read func(agent.Certificate) float64) func(*Metrics, emit) {
	return ofState(func(s *agent.State, e emit) {
		for _, c := range s.Status.Certificates {
			if c.Serial != "" {
				e(read(c), c.Name)
			}
		}
	})
}

func served(m *Metrics, e emit) {
	ofState(func(s *agent.State, e emit) {
		for certificate, is := range s.Served {
			e(truth(is), certificate)
		}
	})(m, e)
}

func alarmLevels(m *Metrics, e emit) {
	ofState(func(s *agent.State, e emit) {
		levels := map[agent.AlarmKind]alarm.Level{}
		for _, one := range s.Alarms {
			levels[one.Kind] = max(levels[one.Kind], one.Level)
		}
		for _, kind := range agent.AlarmKinds() {
			e(float64(levels[kind]), string(kind))
		}
	})(m, e)
}

func clockOffset(m *Metrics, e emit) {
	ofState(func(s *agent.State, e emit) {
		if s.Status.Clock != nil {
			e(s.Status.Clock.Offset.Seconds())
		}
	})(m, e)
}
