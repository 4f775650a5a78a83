// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify/provertest"
)

// The recorded conversations come out of the plugin as they come out of package
// verify. Their secrets were another server's, so the challenge is sealed here
// anew around the recorded one.
func TestVectors(t *testing.T) {
	for name, v := range provertest.Vectors(t, "../attest/testdata/vectors") {
		t.Run(name, func(t *testing.T) {
			m := newMount(t, new(logical.InmemStorage), "mount-1")
			m.b.wallClock = func() time.Time { return v.Now }
			m.write("config", map[string]any{"virtual_roots": v.Roots, "audiences": v.Audiences})
			m.write("role/keylime", map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcr_bank": v.Selection.Bank, "pcrs": v.Selection.PCRs})
			_, err := m.challenge(v.Request)
			if err != nil {
				wantRefusal(t, err, v.Expect.Rule)
				return
			}
			replay(t, m, v)
		})
	}
}

func replay(t *testing.T, m *mount, v *provertest.Vector) {
	t.Helper()
	ak, err := attest.ParseAK(v.Request.AKPublic)
	check(t, err)
	c, err := load[config](t.Context(), m.s, configKey)
	check(t, err)
	r, err := load[role](t.Context(), m.s, rolePrefix+"keylime")
	check(t, err)
	s := &sealed{kind: v.Kind, class: attest.ClassVirtual, role: sha("keylime"), settings: r.settings, config: c.sum, secret: [32]byte(v.S), selection: v.Selection}
	s.akX, s.akY = ak.Point()
	if v.Expect.Rule == "" {
		enrol(t, m, s, v, ak)
	}
	login := v.Login
	login.Challenge, err = m.b.challenges.seal(s)
	check(t, err)
	auth, err := m.login(login)
	if v.Expect.Rule != "" {
		wantRefusal(t, err, v.Expect.Rule)
		return
	}
	check(t, err)
	if auth.Metadata["host"] != "spire" || auth.Metadata["boot"] != "accepted" {
		t.Errorf("metadata %v", auth.Metadata)
	}
}

// enrol lists the recorded TPM with the digest it was recorded with.
func enrol(t *testing.T, m *mount, s *sealed, v *provertest.Vector, ak *attest.AK) {
	t.Helper()
	m.write("host/spire", map[string]any{
		"tpm_ids": string(v.Expect.TPMID), "roles": "keylime", "pcr_digests": v.Expect.PCRDigest,
	})
	id, err := hex.DecodeString(strings.TrimPrefix(string(v.Expect.TPMID), "sha256-"))
	check(t, err)
	s.tpm = [32]byte(id)
	if v.Kind == attest.KindKnown {
		x, y := ak.Point()
		defer m.cold()
		check(t, setPin(t.Context(), m.s, v.Expect.TPMID, ak, &pin{AK: append(x[:], y[:]...)}))
	}
}
