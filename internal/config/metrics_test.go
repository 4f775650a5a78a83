// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func withMetrics(line string) string {
	return strings.Replace(spire, "[[certificate]]", "[metrics]\n"+line+"\n\n[[certificate]]", 1)
}

func TestMetricsAreOffByDefault(t *testing.T) {
	c, err := load(t, spire)
	if err != nil || c.Metrics != (Metrics{}) {
		t.Errorf("%+v, %v", c.Metrics, err)
	}
}

func TestMetrics(t *testing.T) {
	for line, want := range map[string]Metrics{
		`textfile = "/var/lib/prometheus/node-exporter/omen-agent.prom"`: {Textfile: "/var/lib/prometheus/node-exporter/omen-agent.prom"},
		`listen = "127.0.0.1:9464"`:                                      {Listen: "127.0.0.1:9464"},
		`listen = "127.8.0.1:1"`:                                         {Listen: "127.8.0.1:1"},
		`listen = "[::1]:9464"`:                                          {Listen: "[::1]:9464"},
	} {
		if c, err := load(t, withMetrics(line)); err != nil || c.Metrics != want {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestMetricsThatAreRefused(t *testing.T) {
	for line, fault := range map[string]string{
		`listen = "0.0.0.0:9464"`:                       "can be reached from other hosts",
		`listen = "[::]:9464"`:                          "can be reached from other hosts",
		`listen = "10.10.2.62:9464"`:                    "can be reached from other hosts",
		`listen = ":9464"`:                              `listen = ":9464"`,
		`listen = "localhost:9464"`:                     `listen = "localhost:9464"`,
		`listen = "127.0.0.1:0"`:                        `listen = "127.0.0.1:0"`,
		`listen = "127.0.0.1"`:                          `listen = "127.0.0.1"`,
		`textfile = "omen.prom"`:                        `textfile = "omen.prom"`,
		`textfile = "/omen.prom"`:                       `textfile = "/omen.prom"`,
		`textfile = "/srv/../x/o.prom"`:                 `textfile = "/srv/../x/o.prom"`,
		`textfile = "/srv/omen.txt"`:                    `textfile = "/srv/omen.txt"`,
		`textfile = "/srv/.prom"`:                       `textfile = "/srv/.prom"`,
		`textfile = "/var/lib/omen-agent/state/o.prom"`: "in a folder that only holds",
		`listener = "127.0.0.1:9464"`:                   "unknown key",
	} {
		_, err := load(t, withMetrics(line))
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), fault) || e.Hint == "" || e.Line != 10 {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// Who looks at a host learns of it too, and everything else is looked at.
func TestWrongMetricsAreAFault(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "agent.toml")
	write(t, path, strings.ReplaceAll(withMetrics(`listen = "0.0.0.0:9464"`), "DIR", dir), 0o644)
	c, faults := Sound(path)
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "can be reached from other hosts") || c.Metrics != (Metrics{}) || len(c.Certificates) != 2 {
		t.Errorf("%v, %+v", faults, c.Metrics)
	}
}
