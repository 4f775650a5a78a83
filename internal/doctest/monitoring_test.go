// SPDX-License-Identifier: Apache-2.0

package doctest

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/metrics"
)

const (
	monitoringPage = "docs/monitoring.md"
	rulesFile      = "dist/prometheus/omen.rules.yml"
	rulesTestFile  = "dist/prometheus/omen.rules.test.yml"
	dashboardFile  = "dist/grafana/omen.json"
)

// TestMetricsTable: the table is the registry's list, with types, labels and help.
func TestMetricsTable(t *testing.T) {
	body := section(t, page(t, monitoringPage), "## Metrics")
	for _, family := range metrics.Families() {
		row := rowOf(body, family.Name)
		if len(row) != 4 || row[1] != string(family.Type) || !slices.Equal(words(row[2]), family.Labels) || row[3] != family.Help {
			t.Errorf("%+v: row %q", family, row)
		}
	}
	if got := len(rows(body)) - 2; got != len(metrics.Families()) {
		t.Errorf("%d rows for %d metrics", got, len(metrics.Families()))
	}
}

// TestEventTable: every event is there, with its MESSAGE_ID.
func TestEventTable(t *testing.T) {
	body := section(t, page(t, monitoringPage), "## Journal")
	for _, event := range agent.Events() {
		if row := rowOf(body, string(event)); len(row) != 3 || row[1] != "`"+event.MessageID()+"`" {
			t.Errorf("%s: row %q", event, row)
		}
	}
	if !strings.Contains(body, "MESSAGE_ID="+agent.EventRefused.MessageID()) {
		t.Error("the example looks for no event")
	}
}

// TestAlarmTable: every kind of alarm is there, and no other.
func TestAlarmTable(t *testing.T) {
	body := section(t, page(t, monitoringPage), "## Status")
	for _, kind := range agent.AlarmKinds() {
		if rowOf(body, string(kind)) == nil {
			t.Errorf("no row for %s", kind)
		}
	}
	if got := len(rows(body)) - 2; got != len(agent.AlarmKinds()) {
		t.Errorf("%d rows for %d kinds", got, len(agent.AlarmKinds()))
	}
}

// TestResultWords: the words of a result are in the page.
func TestResultWords(t *testing.T) {
	body := section(t, page(t, monitoringPage), "## Metrics")
	for _, result := range agent.Results() {
		if !strings.Contains(body, "`"+string(result)+"`") {
			t.Errorf("no %s", result)
		}
	}
}

// alerts are the rules by their names.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for block := range strings.SplitSeq(page(t, rulesFile), "- alert: ") {
		if name, rest, is := strings.Cut(block, "\n"); is && !strings.Contains(name, "#") {
			found[name] = rest
		}
	}
	if len(found) < 7 {
		t.Fatalf("alerts: %v", found)
	}
	return found
}

var runbookLine = regexp.MustCompile(`(?m)^\s+runbook: (\S+)#(\S+)$`)

// TestRunbooks: every alert says what is wrong, leads to a heading that is there,
// and is put to a test in which it fires.
func TestRunbooks(t *testing.T) {
	headings := anchors(page(t, monitoringPage))
	tests := page(t, rulesTestFile)
	for name, rule := range alerts(t) {
		runbook := runbookLine.FindStringSubmatch(rule)
		if runbook == nil || runbook[1] != monitoringPage || runbook[2] != strings.ToLower(name) || !slices.Contains(headings, runbook[2]) {
			t.Errorf("%s: runbook %q", name, runbook)
		}
		if !strings.Contains(rule, "summary: \"") || !strings.Contains(rule, "severity: ") {
			t.Errorf("%s has no summary or no severity", name)
		}
		if !regexp.MustCompile(`alertname: ` + name + `\n\s+exp_alerts:\n\s+- exp_labels`).MatchString(tests) {
			t.Errorf("%s: no test in which it fires", name)
		}
	}
	body := section(t, page(t, monitoringPage), "## Alerts")
	for _, heading := range headingLine.FindAllStringSubmatch(body, -1) {
		if alerts(t)[heading[1]] == "" {
			t.Errorf("%s is no alert", heading[1])
		}
	}
}

var metricName = regexp.MustCompile(`\bomen_[a-z0-9_]+`)

// TestKnownMetrics: rules, their tests and the dashboard ask for what is there.
func TestKnownMetrics(t *testing.T) {
	known := map[string]bool{}
	for _, family := range metrics.Families() {
		known[family.Name] = true
	}
	for _, file := range []string{rulesFile, rulesTestFile, dashboardFile} {
		found := metricName.FindAllString(page(t, file), -1)
		if len(found) < 5 {
			t.Errorf("%s asks for %v", file, found)
		}
		for _, name := range found {
			if !known[name] {
				t.Errorf("%s: %s is no metric of ours", file, name)
			}
		}
	}
}

var legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// TestDashboard: each panel says what it shows, asks the chosen source for the chosen
// hosts, and names its series by labels that exist.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title, Description string
			Targets            []struct{ Expr, LegendFormat string }
		}
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(page(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	labels := []string{"instance"}
	for _, family := range metrics.Families() {
		labels = append(labels, family.Labels...)
	}
	for _, panel := range dashboard.Panels {
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 {
			t.Errorf("%q: description %q, %d queries", panel.Title, panel.Description, len(panel.Targets))
		}
		for _, target := range panel.Targets {
			if !strings.Contains(target.Expr, `{instance=~"$instance"}`) {
				t.Errorf("%s asks for all hosts: %s", panel.Title, target.Expr)
			}
			for _, label := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(labels, label[1]) {
					t.Errorf("%s: no metric has a label %s", panel.Title, label[1])
				}
			}
		}
	}
	if len(dashboard.Panels) < 8 || len(dashboard.Templating.List) != 2 {
		t.Errorf("%d panels, %d variables", len(dashboard.Panels), len(dashboard.Templating.List))
	}
}

// TestScrapingExample: the agent accepts the example of the page.
func TestScrapingExample(t *testing.T) {
	block := tomlBlock.FindStringSubmatch(page(t, monitoringPage))
	if block == nil {
		t.Fatal("no example")
	}
	first, rest, _ := strings.Cut(examples(t)[0], "[[certificate]]")
	c := load(t, first+block[1]+"[[certificate]]"+rest)
	if c.Metrics.Textfile == "" || c.Metrics.Listen == "" {
		t.Errorf("%+v", c.Metrics)
	}
}
