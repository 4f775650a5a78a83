// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/agent"
)

// Metrics are the figures of one process. Counters begin at zero with it, as
// Prometheus expects.
type Metrics struct {
	registry *prometheus.Registry
	log      *slog.Logger
	textfile string // "" for none

	renewals *prometheus.CounterVec
	refusals *prometheus.CounterVec
	commands *prometheus.CounterVec
	duration *prometheus.GaugeVec

	mutex sync.Mutex
	state *agent.State // as it was seen last; nil before the first time
}

// New makes the figures of an agent of this version. They are written to textfile
// as often as something is heard; "" is no file.
func New(version, textfile string, log *slog.Logger) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), log: log, textfile: textfile,
		renewals: counterVec(renewals), refusals: counterVec(refusals), commands: counterVec(commands),
		duration: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: duration.Name, Help: duration.Help}, duration.Labels),
	}
	about := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: build.Name, Help: build.Help}, build.Labels)
	about.WithLabelValues(version, runtime.Version()).Set(1)
	m.registry.MustRegister(m.renewals, m.refusals, m.commands, m.duration, about, gauges{m})
	m.atZero()
	return m
}

// atZero makes the series that alerts look at before there is anything to count:
// an increase is seen only from a value that was there before.
func (m *Metrics) atZero() {
	m.renewals.WithLabelValues(string(agent.StepProbe), string(agent.RenewalSucceeded))
	for _, step := range agent.Steps() {
		m.renewals.WithLabelValues(string(step), string(agent.RenewalFailed))
	}
	for _, step := range []agent.Step{agent.StepChallenge, agent.StepLogin, agent.StepSign} {
		m.renewals.WithLabelValues(string(step), string(agent.RenewalRefused))
	}
	for _, step := range []agent.Step{agent.StepReload, agent.StepProbe} {
		m.renewals.WithLabelValues(string(step), string(agent.RenewalRolledBack))
	}
	for _, rule := range attest.Rules() {
		m.refusals.WithLabelValues(string(rule))
	}
}

// before names the step of what ended before the first one: files of the
// configuration could not be read.
const before = "none"

// Attempted is of [agent.Observer].
func (m *Metrics) Attempted(a agent.Attempt) {
	step := string(a.Step)
	if step == "" {
		step = before
	}
	m.renewals.WithLabelValues(step, string(a.Result)).Inc()
	if a.Rule != "" {
		m.refusals.WithLabelValues(ruleLabel(a.Rule)).Inc()
	}
	for command, times := range a.Commands {
		m.commands.WithLabelValues(command).Add(float64(times))
	}
	for step, spent := range a.Spent {
		m.duration.WithLabelValues(string(step)).Set(spent.Seconds())
	}
	m.write()
}

// ruleLabel: a server may say any word, and is not to make series with them.
func ruleLabel(rule attest.Rule) string {
	if rule.Known() {
		return string(rule)
	}
	return "other"
}

// Observed is of [agent.Observer].
func (m *Metrics) Observed(s agent.State) {
	m.mutex.Lock()
	m.state = &s
	m.mutex.Unlock()
	m.write()
}

// Text is everything in Prometheus' text format.
func (m *Metrics) Text() ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("gather metrics: %w", err)
	}
	var out bytes.Buffer
	encoder := expfmt.NewEncoder(&out, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return nil, fmt.Errorf("encode metrics: %w", err)
		}
	}
	return out.Bytes(), nil
}

// format is the text format that node_exporter reads too.
var format = expfmt.NewFormat(expfmt.TypeTextPlain)
