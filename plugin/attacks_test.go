// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/openbao/openbao/api/v2"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest/attacker"
)

// attackedRoles are roles of every sort that hosts of the attacks may use, but
// for other.
var attackedRoles = map[string]map[string]any{
	"other":  {"pcrs": "0"},
	"plain":  {"pcrs": "0,2,4,7"},
	"always": {"pcrs": "0", "pcr_bank": "sha384", "always_activate": true},
	"logged": {"pcrs": "0,1,2,3,4,6,7", "secure_boot": "enforce"},
}

// attacked configures a mount for attacks on one role, by what writes to it, and
// says so as package attacker wants it.
func attacked(vendor *attacker.Vendor, role string, write func(path string, data map[string]any)) attacker.Setting {
	write("config", map[string]any{"virtual_roots": vendor.PEM(), "audiences": audience})
	for _, name := range []string{role, "other"} {
		settings := maps.Clone(attackedRoles[name])
		settings["way_in"], settings["ek_classes"] = "allow-list", "virtual,uncertified"
		write("role/"+name, settings)
	}
	hosts := 0
	return attacker.Setting{
		Role: role, OtherRole: "other", Audience: audience, Vendor: vendor, EK: attacker.P256, ReadsLog: role == "logged",
		Enrol: func(_ context.Context, tpm *attacker.TPM) error {
			id, err := tpm.ID()
			hosts++
			write(fmt.Sprintf("host/attacked-%d", hosts), map[string]any{"tpm_ids": string(id), "roles": role})
			return err
		},
	}
}

// serve takes a message apart and answers as OpenBao does.
func (m *mount) serve(ctx context.Context, path string, message []byte) (*attacker.Answer, error) {
	data := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(message))
	decoder.UseNumber()
	if err := decoder.Decode(&data); err != nil {
		return nil, err
	}
	resp, err := m.b.HandleRequest(ctx, &logical.Request{
		Operation: logical.UpdateOperation, Path: path, Data: data, Storage: m.s,
		Connection: &logical.Connection{RemoteAddr: "192.0.2.7"},
	})
	if err != nil {
		coded, ok := err.(logical.HTTPCodedError) //nolint:errorlint // the plugin protocol looks at the type alone
		if !ok || resp != nil {
			return nil, fmt.Errorf("%T beside %v: %w", err, resp, err)
		}
		return &attacker.Answer{Status: coded.Code(), Errors: []string{coded.Error()}}, nil
	}
	answer := &attacker.Answer{Status: 200}
	if resp.Auth != nil {
		answer.Auth, err = json.Marshal(map[string]any{"metadata": resp.Auth.Metadata})
	} else {
		answer.Data, err = json.Marshal(resp.Data)
	}
	return answer, err
}

// TestAttacks plays every attack of package attacker through the real entry, on
// hosts of every sort: each is refused by its rule, leaves nothing in the storage
// and no control character in the log, and locks nobody out.
func TestAttacks(t *testing.T) {
	vendor, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	for _, s := range []struct {
		name, role string
		pinned     bool
	}{
		{"first login", "plain", false},
		{"pinned AK", "plain", true},
		{"always activated", "always", false},
		{"boot judged", "logged", true},
	} {
		t.Run(s.name, func(t *testing.T) {
			for _, a := range attacker.Attacks() {
				if !a.Applies(attacker.Setting{OtherRole: "other", Pinned: s.pinned, ReadsLog: s.role == "logged"}) {
					continue
				}
				t.Run(a.Name, func(t *testing.T) {
					m := newMount(t, storages(t)["transactional"], "mount-1")
					setting := attacked(vendor, s.role, func(path string, data map[string]any) { m.write(path, data) })
					setting.Server, setting.Pinned = attacker.Handler(m.serve), s.pinned
					m.attack(t, a, setting)
				})
			}
		})
	}
}

// TestAttacksOnBao plays the attacks on a real OpenBao, over HTTP.
func TestAttacksOnBao(t *testing.T) {
	vendor, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	s := startBao(t)
	check(t, s.root.Sys().EnableAuthWithOptions("tpm", &api.EnableAuthOptions{Type: pluginName}))
	setting := attacked(vendor, "logged", func(path string, data map[string]any) { s.write("auth/tpm/"+path, data) })
	setting.Pinned = true
	// In development mode it speaks no TLS: nobody needs to vouch for it.
	setting.Server, err = attacker.NewHTTP(s.root.Address(), "", "auth/tpm", []byte(vendor.PEM()))
	check(t, err)
	for _, a := range attacker.Attacks() {
		if !a.Applies(setting) {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			scene, err := setting.Open(t.Context())
			check(t, err)
			check(t, a.Run(t.Context(), scene))
		})
	}
}

func (m *mount) attack(t *testing.T, a attacker.Attack, setting attacker.Setting) {
	t.Helper()
	scene, err := setting.Open(t.Context())
	check(t, err)
	attempt, err := a.Prepare(t.Context(), scene)
	check(t, err)
	before := m.content()
	answer, err := attempt(t.Context())
	check(t, err)
	check(t, a.Judge(answer, setting.Pinned))
	if !maps.Equal(before, m.content()) {
		t.Error("what is stored has changed")
	}
	check(t, scene.Honest(t.Context(), scene.Host))
	if nasty := m.unprintable(); nasty != "" {
		t.Errorf("the log has %q", nasty)
	}
}

// unprintable finds what a host could have slipped into the log to fool who
// reads it. The log is JSON, which escapes control characters: an escape that is
// not itself quoted was one.
func (m *mount) unprintable() string {
	text := strings.ReplaceAll(m.logged.String(), `\\`, "")
	for _, control := range []string{`\u000`, `\u001`, `\n`, `\ufffd`, `\u202e`} {
		if i := strings.Index(text, control); i >= 0 {
			return text[i:min(i+20, len(text))]
		}
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		return text[i:min(i+20, len(text))]
	}
	return ""
}
