// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify/provertest"
)

func TestConfig(t *testing.T) {
	m := newMount(t, new(logical.InmemStorage), "mount-1")
	resp := m.must(logical.ReadOperation, "config", nil)
	if resp.Data["virtual_roots"] != "" || len(resp.Data["audiences"].([]string)) != 0 {
		t.Errorf("before any write: %v", resp.Data)
	}
	pem := provertest.NewVendor(t).PEM()
	m.write("config", map[string]any{"virtual_roots": pem, "ek_intermediates": "a vendor\n" + pem})
	m.write("config", map[string]any{"audiences": audience + ",https://[fe80::1]:8200|team/|auth/tpm"})
	resp = m.must(logical.ReadOperation, "config", nil)
	if resp.Data["virtual_roots"] != pem || len(resp.Data["audiences"].([]string)) != 2 {
		t.Errorf("got %v", resp.Data)
	}
	for _, data := range []map[string]any{
		{"virtual_roots": "nonsense"},
		{"ek_intermediates": "nonsense"},
		{"virtual_roots": strings.Repeat(" ", maxBundle+1)},
		{"audiences": "https://spire.funlab.casa:8200"},
		{"audiences": "https://spire.funlab.casa||auth/tpm"},
		{"audiences": "https://Spire.funlab.casa:8200||auth/tpm"},
		{"audiences": "https://spire.funlab.casa:8200|/|auth/tpm"},
		{"audiences": "https://spire.funlab.casa:8200||auth/tpm/"},
		{"audiences": "http://spire.funlab.casa:8200||auth/tpm"},
		{"audiences": []string{audience, "https://a:1||auth/tpm", audience + "|"}},
	} {
		m.refuses(logical.UpdateOperation, "config", data)
	}
	if after := m.must(logical.ReadOperation, "config", nil); !reflect.DeepEqual(after.Data, resp.Data) {
		t.Errorf("a refused write changed %v", after.Data)
	}
}

func TestRole(t *testing.T) {
	m := newMount(t, new(logical.InmemStorage), "mount-1")
	if resp := m.must(logical.ReadOperation, "role/keylime", nil); resp != nil {
		t.Errorf("no role: %v", resp)
	}
	m.must(logical.CreateOperation, "role/Keylime", map[string]any{"way_in": "allow-list", "pcrs": []int{7, 0}})
	got := m.must(logical.ReadOperation, "role/keylime", nil).Data
	want := map[string]any{
		"pcr_bank": "sha256", "pcrs": []int{0, 7}, "host_policy": true, "always_activate": false,
		"token_type": "batch", "token_ttl": int64(120), "token_max_ttl": int64(0), "token_period": int64(0),
	}
	for field, value := range want {
		if !reflect.DeepEqual(got[field], value) {
			t.Errorf("%s is %v, want %v", field, got[field], value)
		}
	}
	m.write("role/keylime", map[string]any{"token_ttl": "5m", "host_policy": false})
	got = m.must(logical.ReadOperation, "role/keylime", nil).Data
	if got["token_ttl"] != int64(300) || got["host_policy"] != false || !slices.Equal(got["pcrs"].([]int), []int{0, 7}) {
		t.Errorf("after a change: %v", got)
	}
	m.write("role/keylime", map[string]any{"token_type": "default", "token_ttl": 0})
	got = m.must(logical.ReadOperation, "role/keylime", nil).Data
	if got["token_type"] != "batch" || got["token_ttl"] != int64(120) {
		t.Errorf("default is %v for %v", got["token_type"], got["token_ttl"])
	}
	m.must(logical.DeleteOperation, "role/keylime", nil)
	if resp := m.must(logical.ReadOperation, "role/keylime", nil); resp != nil {
		t.Errorf("deleted role: %v", resp)
	}
}

func TestRoleRefuses(t *testing.T) {
	m := newMount(t, new(logical.InmemStorage), "mount-1")
	for _, data := range []map[string]any{
		{},
		{"way_in": "allow-list", "pcrs": ""},
		{"way_in": "allow-list", "pcrs": []int{24}},
		{"way_in": "allow-list", "pcrs": []int{-1}},
		{"way_in": "allow-list", "pcrs": []int{7, 7}},
		{"way_in": "allow-list", "pcrs": []int{7}, "pcr_bank": "sha1"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_ttl": "16m"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_max_ttl": "16m"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_explicit_max_ttl": "16m"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_max_ttl": "1m"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_period": "5m"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_period": "5m", "token_type": "service"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_num_uses": 3},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_type": "default", "token_num_uses": 3},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_type": "eternal"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_policies": "a,root"},
		{"way_in": "allow-list", "pcrs": []int{7}, "token_policies": "ROOT"},
	} {
		m.refuses(logical.CreateOperation, "role/keylime", data)
	}
	m.refuses(logical.CreateOperation, "role/"+strings.Repeat("a", 129), map[string]any{"way_in": "allow-list", "pcrs": "7"})
	if len(m.keys()) != 0 {
		t.Errorf("stored: %v", m.keys())
	}
}

func tpmID(i int) string { return fmt.Sprintf("sha256-%064x", i) }

func TestHost(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			m := newMount(t, s, "mount-1")
			digest := strings.Repeat("AB", 32)
			m.write("role/keylime", map[string]any{"way_in": "allow-list", "pcrs": "7"})
			if resp := m.must(logical.CreateOperation, "host/spire", map[string]any{
				"tpm_ids": []string{tpmID(1), tpmID(2)}, "roles": "keylime", "pcr_digests": digest,
			}); resp != nil {
				t.Errorf("a write with nothing to say: %v", resp)
			}
			got := m.must(logical.ReadOperation, "host/spire", nil).Data
			if got["state"] != "active" || got["way_in"] != "allow-list" || got["pcr_digests"].([]string)[0] != strings.ToLower(digest) {
				t.Errorf("got %v", got)
			}
			m.write("host/spire", map[string]any{"pcr_digests": ""})
			got = m.must(logical.ReadOperation, "host/spire", nil).Data
			if len(got["pcr_digests"].([]string)) != 0 || len(got["roles"].([]string)) != 1 {
				t.Errorf("got %v", got)
			}
			// One TPM, one host: also the reserved ones, also after a change.
			if text := m.refuses(logical.CreateOperation, "host/auth", map[string]any{"tpm_ids": tpmID(2)}); !strings.Contains(text, "spire") {
				t.Errorf("an operator hears %q", text)
			}
			if resp := m.must(logical.ReadOperation, "host/auth", nil); resp != nil {
				t.Errorf("a refused host is there: %v", resp)
			}
			m.write("host/spire", map[string]any{"tpm_ids": tpmID(1)})
			if text := m.refuses(logical.CreateOperation, "host/auth", map[string]any{"tpm_ids": tpmID(2)}); !strings.Contains(text, "given up by host spire") {
				t.Errorf("an operator hears %q", text)
			}
			m.must(logical.DeleteOperation, "tombstone/"+tpmID(2), nil)
			m.must(logical.CreateOperation, "host/auth", map[string]any{"tpm_ids": tpmID(2)})
			m.must(logical.DeleteOperation, "host/spire", nil)
			m.must(logical.DeleteOperation, "host/auth", nil)
			for i := range 2 {
				m.must(logical.DeleteOperation, "tombstone/"+tpmID(i+1), nil)
			}
			m.must(logical.DeleteOperation, "role/keylime", nil)
			if len(m.keys()) != 0 {
				t.Errorf("left behind: %v", m.keys())
			}
		})
	}
}

// Whatever names a TPM goes with it.
func TestDeletingAHostForgetsItsPins(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			before := w.keys()
			w.must(logical.DeleteOperation, "host/spire", nil)
			w.lift(w.spire)
			without := w.keys()
			w.write("host/spire", map[string]any{"tpm_ids": w.id(w.spire), "roles": "keylime"})
			w.in(w.spire, "keylime")
			if len(w.keys()) != len(before)+2 {
				t.Fatalf("stored: %v", w.keys())
			}
			w.must(logical.DeleteOperation, "host/spire", nil)
			w.lift(w.spire)
			if !slices.Equal(w.keys(), without) {
				t.Errorf("left behind: %v", w.keys())
			}
		})
	}
}

// A machine that is to log in by its other EK shows the AK that it has had
// before: the EK that is now reserved does not keep it.
func TestReservedTPMHoldsNoPin(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			w.in(w.spire, "keylime")
			w.second.StealAK(w.spire)
			w.write("host/spire", map[string]any{"tpm_ids": []string{w.id(w.second), w.id(w.spire)}})
			w.in(w.second, "keylime")
			w.out(w.spire, "keylime", attest.RuleTPMTaken)
		})
	}
}

// Names of roles are lower case, wherever an operator writes them.
func TestHostRolesAreLowerCase(t *testing.T) {
	w := newPlainWorld(t)
	w.write("host/spire", map[string]any{"roles": "Keylime"})
	w.in(w.spire, "keylime")
}

// What a write overlooks it says, on every path.
func TestUnknownFieldsAreToldToOperators(t *testing.T) {
	w := newPlainWorld(t)
	for path, data := range map[string]map[string]any{
		"config":       {"audience": audience},
		"role/keylime": {"always_activat": true},
		"host/spire":   {"pcr_digest": "", "pcr_digests": strings.Repeat("ab", 32)},
	} {
		if resp := w.write(path, data); resp == nil || !strings.Contains(strings.Join(resp.Warnings, "\n"), "ignored") {
			t.Errorf("%s: %+v", path, resp)
		}
	}
	for path, data := range map[string]map[string]any{
		"config": {"audiences": audience}, "host/spire": {"roles": "keylime"},
	} {
		if resp := w.write(path, data); resp != nil {
			t.Errorf("%s: nothing to say, but %+v", path, resp)
		}
	}
}

func TestResettablePCRsAreToldToOperators(t *testing.T) {
	w := newPlainWorld(t)
	for pcrs, want := range map[string]int{"0,7,20": 0, "7,16": 1, "21,22,23": 3} {
		resp := w.write("role/keylime", map[string]any{"pcrs": pcrs})
		if got := strings.Count(strings.Join(resp.Warnings, "\n"), "can be reset"); got != want {
			t.Errorf("%s: %d warnings, want %d", pcrs, got, want)
		}
	}
}

func TestHostRefuses(t *testing.T) {
	m := newMount(t, new(logical.InmemStorage), "mount-1")
	for _, name := range []string{"root", "default", "Spire", "a_b", "a.b", strings.Repeat("a", 64)} {
		m.refuses(logical.CreateOperation, "host/"+name, map[string]any{"tpm_ids": tpmID(1)})
		m.refuses(logical.DeleteOperation, "host/"+name, nil) // of another spelling: still there
	}
	var many []string
	for i := range maxTPMIDs + 1 {
		many = append(many, tpmID(i))
	}
	for _, data := range []map[string]any{
		{},
		{"tpm_ids": ""},
		{"tpm_ids": "sha256-AB"},
		{"tpm_ids": strings.ToUpper(tpmID(10))},
		{"tpm_ids": many},
		{"tpm_ids": tpmID(1), "pcr_digests": "ab"},
		{"tpm_ids": tpmID(1), "pcr_digests": strings.Repeat("xy", 32)},
		{"tpm_ids": tpmID(1), "roles": slices.Collect(func(yield func(string) bool) {
			for i := range maxHostRoles + 1 {
				if !yield(fmt.Sprint("r", i)) {
					return
				}
			}
		})},
	} {
		m.refuses(logical.CreateOperation, "host/spire", data)
	}
	if len(m.keys()) != 0 {
		t.Errorf("stored: %v", m.keys())
	}
}

func TestLists(t *testing.T) {
	m := newMount(t, new(logical.InmemStorage), "mount-1")
	for i, name := range []string{"a", "b", "c"} {
		m.must(logical.CreateOperation, "host/"+name, map[string]any{"tpm_ids": tpmID(i)})
		m.must(logical.CreateOperation, "role/"+name, map[string]any{"way_in": "allow-list", "pcrs": "7"})
	}
	for _, path := range []string{"host/", "role/"} {
		for _, row := range []struct {
			data map[string]any
			want []string
		}{
			{nil, []string{"a", "b", "c"}},
			{map[string]any{"limit": 2}, []string{"a", "b"}},
			{map[string]any{"after": "a", "limit": 1}, []string{"b"}},
			{map[string]any{"after": "b", "limit": 0}, []string{"c"}},
		} {
			got := m.must(logical.ListOperation, path, row.data)
			if !slices.Equal(got.Data["keys"].([]string), row.want) {
				t.Errorf("%s with %v: %v", path, row.data, got.Data)
			}
		}
	}
}

func TestExistenceChecks(t *testing.T) {
	w := newPlainWorld(t)
	for path, want := range map[string]bool{
		"host/spire": true, "host/auth": false, "role/keylime": true, "role/other": false,
	} {
		found, exists, err := w.b.HandleExistenceCheck(t.Context(), &logical.Request{
			Operation: logical.CreateOperation, Path: path, Storage: w.s,
		})
		if err != nil || !found || exists != want {
			t.Errorf("%s: %v, %v, %v", path, found, exists, err)
		}
	}
}

// Every path says what it is for, and every operation that must run on the
// active node says so.
func TestConventions(t *testing.T) {
	w := newPlainWorld(t)
	if w.b.Type() != logical.TypeCredential || w.b.PluginVersion().Version != Version {
		t.Errorf("type %s, version %v", w.b.Type(), w.b.PluginVersion())
	}
	for _, path := range w.b.Paths {
		if path.HelpSynopsis == "" || path.HelpDescription == "" || path.DisplayAttrs.OperationPrefix != "tpm" {
			t.Errorf("%s has no help or no OpenAPI name", path.Pattern)
		}
		for op, handler := range path.Operations {
			p := handler.Properties()
			reads := slices.Contains([]logical.Operation{
				logical.ReadOperation, logical.ListOperation, logical.ResolveRoleOperation,
			}, op)
			// Some reads go there as well: the active node knows what is in memory.
			if p.Summary == "" || !reads && !p.ForwardPerformanceStandby || reads == p.ForwardPerformanceSecondary {
				t.Errorf("%s %s: %+v", op, path.Pattern, p)
			}
		}
	}
	for _, path := range w.b.SpecialPaths().Unauthenticated {
		if path != challengePath && path != loginPath {
			t.Errorf("%s needs no token", path)
		}
	}
	if got := consts.ReplicationPerformanceStandby; !got.HasState(consts.ReplicationPerformanceStandby) {
		t.Error(got)
	}
}

// What paths answer is what their documentation says they answer.
func TestResponseSchemas(t *testing.T) {
	w := newPlainWorld(t)
	c := w.must(logical.UpdateOperation, challengePath, body(t, w.spire.Request("keylime")))
	for path, data := range map[string]map[string]any{
		"config":       w.must(logical.ReadOperation, "config", nil).Data,
		"role/keylime": w.must(logical.ReadOperation, "role/keylime", nil).Data,
		"host/spire":   w.must(logical.ReadOperation, "host/spire", nil).Data,
		challengePath:  c.Data,
	} {
		op := logical.ReadOperation
		if path == challengePath {
			op = logical.UpdateOperation
		}
		schema := w.b.Route(path).Operations[op].Properties().Responses[200][0].Fields
		d := framework.FieldData{Raw: data, Schema: schema}
		if err := d.ValidateStrict(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for field := range data {
			if schema[field] == nil {
				t.Errorf("%s answers %s, which is not documented", path, field)
			}
		}
	}
}
