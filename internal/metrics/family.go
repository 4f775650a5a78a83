// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// Type is how Prometheus treats a figure.
type Type string

// The types that occur.
const (
	Counter Type = "counter"
	Gauge   Type = "gauge"
)

// A Family is all series of one name.
type Family struct {
	Name   string
	Type   Type
	Help   string
	Labels []string
}

// What renewals add to, and what this program is.
var (
	renewals = Family{"omen_renewals_total", Counter, "Renewals that ended, by the step at which they ended and how.", []string{"step", "result"}}
	refusals = Family{"omen_attestation_refused_total", Counter, "Renewals that the auth method refused, by its rule.", []string{"rule"}}
	commands = Family{"omen_tpm_commands_total", Counter, "Commands that renewals sent to the TPM.", []string{"command"}}
	duration = Family{"omen_renewal_duration_seconds", Gauge, "What each step of the last renewal took.", []string{"step"}}
	build    = Family{"omen_build_info", Gauge, "The agent that runs; always 1.", []string{"version", "goversion"}}
)

// Families lists all figures, for documentation and those who make rules of them.
func Families() []Family {
	list := []Family{renewals, refusals, commands, duration, build}
	for _, one := range read {
		list = append(list, one.Family)
	}
	return list
}

func counterVec(f Family) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.Name, Help: f.Help}, f.Labels)
}
