// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/alarm"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 8, 22, 12, 0, 0, 0, time.UTC)

// serial is as long as OpenBao makes them.
const serial = "3a:5f:10:b2:77:de:04:91:cc:68:2b:e0:99:14:af:53:7d:c1:08:ee"

func certificate(name, service string, until time.Time) agent.Certificate {
	return agent.Certificate{
		Certificate: install.Certificate{Name: name, CommonName: name + ".keylime.funlab.casa", Serial: serial, NotBefore: until.Add(-24 * time.Hour), NotAfter: until},
		Key:         agent.KeyStatus{Mode: "sealed", Configured: "sealed", Policy: &agent.KeyPolicy{Bank: "sha256", PCRs: []int{7}}}, Profile: "keylime-" + name, Service: service,
		RenewAt: until.Add(-8 * time.Hour),
	}
}

// hosts are what people see: all is well, much is wrong, and nothing is there yet.
func hosts() map[string]*agent.Status {
	well := &agent.Status{Record: agent.Record{Host: "spire", LastSuccess: noon.Add(-2 * time.Hour), LastAttempt: noon.Add(-2 * time.Hour),
		Clock: &agent.Clock{Offset: time.Second, At: noon}}, NextRenewal: noon.Add(14 * time.Hour)}
	well.Generation = 12
	well.Certificates = []agent.Certificate{
		certificate("verifier", "keylime_verifier.service", noon.Add(22*time.Hour)), certificate("tenant", "/usr/bin/keylime_tenant", noon.Add(22*time.Hour)),
	}

	ill := &agent.Status{Record: agent.Record{Host: "spire", LastSuccess: noon.Add(-22 * time.Hour), LastAttempt: noon.Add(-10 * time.Minute),
		Clock: &agent.Clock{Offset: -3 * time.Minute, At: noon.Add(-10 * time.Minute)},
		Failure: &agent.Failure{Step: agent.StepLogin, Rule: "boot-policy", Message: "login: https://spire.funlab.casa:8200: refused: boot-policy (HTTP 403)\x1b[2J",
			Remedy: "this machine booted into a state that OpenBao does not accept; an operator sees what moved with bao read auth/tpm/verdict/<host>"}},
		HeldUntil: noon.Add(40 * time.Minute), Unproven: true, Level: alarm.Critical,
		Remarks: []string{"whoever holds a client certificate of the CA that Keylime's servers have theirs from is an administrator of Keylime"},
		Alarms: []agent.Alarm{{Kind: agent.AlarmExpiry, Level: alarm.Critical, Certificate: "verifier", Reason: "2h00m of 24h00m left"},
			{Kind: agent.AlarmRenewal, Level: alarm.Warning, Reason: "OpenBao refused this host: boot-policy"}},
		NoTPMKeys: []agent.Reader{{Service: "/usr/bin/keylime_verifier", Why: "Keylime's Python programs need tpm2-openssl 1.3 or newer"}},
	}
	ill.Generation = 11
	ill.Certificates = []agent.Certificate{certificate("verifier", "keylime_verifier.service", noon.Add(2*time.Hour))}
	ill.Certificates[0].Key.NotGiven = true
	ill.Certificates = append(ill.Certificates, agent.Certificate{Certificate: install.Certificate{Name: "web"}, Service: "nginx.service"})

	fresh := &agent.Status{Level: alarm.Warning, Alarms: []agent.Alarm{{Kind: agent.AlarmMissing, Level: alarm.Warning, Certificate: "tenant", Reason: "not installed"}}}
	fresh.Generation = -1
	fresh.Certificates = []agent.Certificate{{Certificate: install.Certificate{Name: "tenant"}, Service: "/usr/bin/keylime_tenant"}}
	return map[string]*agent.Status{"well": well, "ill": ill, "fresh": fresh}
}

func TestStatusText(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	for name, status := range hosts() {
		var text, coloured bytes.Buffer
		statusText(page{w: &text}, status, noon)
		golden(t, name+".txt", text.Bytes())
		for line := range strings.Lines(text.String()) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 80 || strings.ContainsAny(line, "\x1b\t") {
				t.Errorf("%s: %q", name, line)
			}
		}
		statusText(page{w: &coloured, colour: true}, status, noon)
		if without := ansi.ReplaceAll(coloured.Bytes(), nil); bytes.Equal(coloured.Bytes(), text.Bytes()) || !bytes.Equal(without, text.Bytes()) {
			t.Errorf("%s in colour:\n%s", name, &coloured)
		}
		encoded, err := json.MarshalIndent(status, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".json", append(encoded, '\n'))
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "status", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string][]string{
		"": {""}, "one": {"one"}, "a b c": {"a b c"}, "aaaa bbbbb cc": {"aaaa bbbbb", "cc"},
		"longer-than-ten-characters x": {"longer-than-ten-characters", "x"}, "üüüü ööööö": {"üüüü ööööö"},
	} {
		if diff := cmp.Diff(want, wrap(text, 10)); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}
