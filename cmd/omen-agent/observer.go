// SPDX-License-Identifier: Apache-2.0

package main

import (
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/metrics"
)

// observer keeps the figures of this process and shows them as [metrics] says; nil
// where that says nothing. What cannot be shown is logged: it is no reason not to
// renew.
func (j *job) observer(c config.Metrics) agent.Observer {
	if c == (config.Metrics{}) {
		return nil
	}
	m := metrics.New(version, c.Textfile, j.log)
	if c.Listen != "" {
		if err := m.Listen(j.ctx, c.Listen); err != nil {
			j.log.Error("metrics are not served", "error", err)
		}
	}
	return m
}
