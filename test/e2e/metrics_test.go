// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

const (
	textfile      = "/var/lib/prometheus/node-exporter/omen-agent.prom"
	metricsListen = "127.0.0.1:9464"
)

// TestMetrics has the daemon renew on a host that shows figures in both ways: they
// are of what has happened, the same in both, and promtool has nothing to say about
// them. Then the service goes, and the figures say so when they are taken again.
func TestMetrics(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "metrics", world.Agent)
	must(t, m.MkdirAll("/var/lib/prometheus/node-exporter", 0o755))
	check(m.Must(ctx, "chown", "-R", "nobody", "/var/lib/prometheus"))(t)
	must(t, m.WriteFile(world.AgentConfig, []byte(m.AgentTOML(m.certificates)+
		fmt.Sprintf("[metrics]\ntextfile = %q\nlisten = %q\n", textfile, metricsListen)), 0o644))

	d := startRun(ctx, t, m.Host)
	text := awaitTextfile(ctx, t, m, `omen_renewals_total{result="success",step="probe"} 1`, `omen_certificate_served{certificate="agent"} 1`)
	leaf := check(m.Installed("agent"))(t)
	for _, want := range []string{
		fmt.Sprintf(`omen_certificate_not_after_timestamp_seconds{certificate="agent"} %v`, float64(leaf.NotAfter.Unix())),
		`omen_certificate_key_given_out{certificate="agent"} 1`, `omen_renewals_total{result="refused",step="login"} 0`,
		`omen_tpm_commands_total{command="Quote"} 1`, `omen_tpm_locked_out 0`, `omen_set_unproven 0`, `omen_alarm_level{kind="expiry"} 0`,
		`omen_renewal_duration_seconds{step="reload"} `, "omen_clock_offset_seconds ", "omen_next_renewal_timestamp_seconds 1.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	wantGoodMetrics(ctx, t, text)
	scraped := check(m.Must(ctx, "curl", "--silent", "--show-error", "--fail", "http://"+metricsListen+"/metrics"))(t).Stdout
	if scraped != text {
		t.Errorf("the listener says\n%s\nand the file\n%s", scraped, text)
	}
	if r := check(m.Run(ctx, "curl", "--silent", "--fail", "http://"+m.address[:strings.Index(m.address, ":")]+":9464/metrics"))(t); r.Code == 0 {
		t.Error("the listener answers at the address that other hosts reach")
	}
	if info := check(m.Stat(textfile))(t); info.Mode().Perm() != 0o644 {
		t.Errorf("the file has mode %s", info.Mode())
	}
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}

	m.stopService(ctx, t)
	d = startRun(ctx, t, m.Host)
	awaitTextfile(ctx, t, m, `omen_certificate_served{certificate="agent"} 0`)
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
}

// awaitTextfile waits until the file holds these texts, and returns all of it.
func awaitTextfile(ctx context.Context, t *testing.T, m *machine, wants ...string) (text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	must(t, world.Await(ctx, func(context.Context) error {
		read, err := m.ReadFile(textfile)
		if err != nil {
			return err
		}
		text = string(read)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				return fmt.Errorf("no %q in %s:\n%s", want, textfile, text)
			}
		}
		return nil
	}))
	return text
}

// wantGoodMetrics has promtool judge a text.
func wantGoodMetrics(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	promtool := check(check(world.FindTools())(t).Promtool())(t)
	cmd := exec.CommandContext(ctx, promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if said, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(said)) > 0 {
		t.Errorf("promtool: %v\n%s", err, said)
	}
}
