// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/metrics"
	"funlab.casa/omen/test/world"
)

const dist = "../../dist"

// promtool runs it with what is on its standard input, and returns what it says.
func promtool(t *testing.T, input []byte, args ...string) (string, error) {
	t.Helper()
	tools, err := world.FindTools()
	if err != nil {
		t.Fatal(err)
	}
	path, err := tools.Promtool()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(input)
	said, err := cmd.CombinedOutput()
	return string(said), err
}

func TestRules(t *testing.T) {
	if said, err := promtool(t, nil, "check", "rules", "--lint=all", "--lint-fatal", filepath.Join(dist, "prometheus/omen.rules.yml")); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestAlerts(t *testing.T) {
	if said, err := promtool(t, nil, "test", "rules", filepath.Join(dist, "prometheus/omen.rules.test.yml")); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// TestAlertsCanFail: a rule with a word changed does not pass its test.
func TestAlertsCanFail(t *testing.T) {
	dir := t.TempDir()
	for from, to := range map[string]string{"omen.rules.yml": "omen.rules.yml", "omen.rules.test.yml": "omen.rules.test.yml"} {
		text, err := os.ReadFile(filepath.Join(dist, "prometheus", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), bytes.ReplaceAll(text, []byte("< 0.2"), []byte("< 0.3")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := promtool(t, nil, "test", "rules", filepath.Join(dir, "omen.rules.test.yml")); err == nil {
		t.Errorf("passed:\n%s", said)
	}
}

// TestDashboardQueries: promtool reads every query of the dashboard.
func TestDashboardQueries(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(dist, "grafana/omen.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			fmt.Fprintf(&rules, "      - record: query:%d\n        expr: %q\n", queries, strings.ReplaceAll(target.Expr, "$instance", ".*"))
		}
		if len(panel.Targets) == 0 {
			t.Errorf("panel %s asks nothing", panel.Title)
		}
	}
	path := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(path, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := promtool(t, nil, "check", "rules", path); err != nil || !strings.Contains(said, fmt.Sprintf("%d rules found", queries)) {
		t.Errorf("%v\n%s\n%s", err, said, rules.String())
	}
}

// TestMetricsAreWellNamed: promtool has nothing to say about names, types and help.
func TestMetricsAreWellNamed(t *testing.T) {
	m := metrics.New("v0.1.0", "", slog.New(slog.DiscardHandler))
	now := time.Now()
	s := &agent.Status{Record: agent.Record{LastAttempt: now, LastSuccess: now, Clock: &agent.Clock{}}, NextRenewal: now}
	s.Certificates = []agent.Certificate{{Certificate: install.Certificate{Name: "verifier", Serial: "01", NotAfter: now}}}
	m.Observed(agent.State{Time: now, Status: s, Served: map[string]bool{"verifier": true}, TPM: new(host.Condition)})
	m.Attempted(agent.Attempt{Result: agent.RenewalSucceeded, Step: agent.StepProbe, Spent: map[agent.Step]time.Duration{agent.StepTPM: 1}, Commands: map[string]int{"Quote": 1}})
	text, err := m.Text()
	if err != nil {
		t.Fatal(err)
	}
	missing := slices.DeleteFunc(metrics.Families(), func(f metrics.Family) bool { return bytes.Contains(text, []byte("# TYPE "+f.Name+" ")) })
	if len(missing) > 0 {
		t.Fatalf("not judged: %v", missing)
	}
	if said, err := promtool(t, text, "check", "metrics"); err != nil || said != "" {
		t.Errorf("%v\n%s", err, said)
	}
	if said, err := promtool(t, append(text, "omen_bad_total 1\n"...), "check", "metrics"); err == nil {
		t.Errorf("a metric without help passes: %s", said)
	}
}
