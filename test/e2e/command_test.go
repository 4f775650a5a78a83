// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"funlab.casa/omen/test/world"
)

// outcome is what omen-agent --output json renew prints.
type outcome struct {
	Host         string         `json:"host"`
	Generation   int            `json:"generation"`
	Renewed      []string       `json:"renewed"`
	Restarted    []string       `json:"restarted"`
	TPMCommands  map[string]int `json:"tpm_commands"`
	Certificates []struct {
		Name, Serial string
	} `json:"certificates"`
}

func renewJSON(ctx context.Context, t *testing.T, h *world.Host, args ...string) outcome {
	t.Helper()
	result := agent(ctx, t, h, append([]string{"--output", "json", "renew"}, args...)...)
	if result.Code != 0 {
		t.Fatal(result.Unexpected(h, 0))
	}
	var o outcome
	must(t, json.Unmarshal([]byte(result.Stdout), &o))
	return o
}

// keepInFiles has a host's keys in files until the test ends.
func keepInFiles(t *testing.T, h *world.Host, certificates []world.Certificate) {
	t.Helper()
	files := slices.Clone(certificates)
	for i := range files {
		files[i].Key = "file"
	}
	must(t, h.WriteAgentConfig(files))
	t.Cleanup(func() { must(t, h.WriteAgentConfig(certificates)) })
}

// TestOneCommand: a renewal of keys in files, of a host whose AK is pinned and
// persisted, costs its TPM one command, however many certificates it is about.
func TestOneCommand(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "one", world.Agent)
	keepInFiles(t, m.Host, m.certificates)
	keepInFiles(t, l.Spire, world.SpireCertificates())
	quote := map[string]int{"Quote": 1}

	first := renewJSON(ctx, t, m.Host)
	for _, command := range []string{"NV_Read", "CreatePrimary", "EvictControl", "ActivateCredential", "Quote"} {
		if first.TPMCommands[command] == 0 {
			t.Errorf("the first renewal did without %s: %v", command, first.TPMCommands)
		}
	}
	for _, row := range []struct {
		name string
		host *world.Host
		do   func() error
	}{
		{"renewal", m.Host, func() error { return nil }},
		{"renewal after a reboot", m.Host, m.TPM.Reboot},
		{"renewal of four certificates", l.Spire, func() error { return nil }},
	} {
		t.Run(row.name, func(t *testing.T) {
			must(t, row.do())
			if again := renewJSON(ctx, t, row.host); !maps.Equal(again.TPMCommands, quote) {
				t.Errorf("cost %v, not %v", again.TPMCommands, quote)
			}
		})
	}
	t.Run("record lost", func(t *testing.T) {
		check(m.Must(ctx, "rm", "/var/lib/omen-agent/state/tpm.json"))(t)
		if again := renewJSON(ctx, t, m.Host); maps.Equal(again.TPMCommands, quote) || again.TPMCommands["CreatePrimary"] > 0 {
			t.Errorf("cost %v", again.TPMCommands)
		}
		if again := renewJSON(ctx, t, m.Host); !maps.Equal(again.TPMCommands, quote) {
			t.Errorf("cost %v, not %v", again.TPMCommands, quote)
		}
	})
	for _, h := range []*world.Host{m.Host, l.Spire} {
		if left, err := h.TPM.Leaks(); err != nil || len(left) > 0 {
			t.Errorf("%s: left in the TPM: %v, %v", h.Name, left, err)
		}
	}
}
