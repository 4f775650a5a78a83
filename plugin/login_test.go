// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify/provertest"
)

func TestLoginActivatesThenKnows(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			if c := w.pose(w.spire, "keylime"); c.Kind != attest.KindActivate {
				t.Fatalf("first challenge is of kind %s", c.Kind)
			}
			w.in(w.spire, "keylime")
			pinned := w.content()
			if c := w.pose(w.spire, "keylime"); c.Kind != attest.KindKnown {
				t.Fatalf("second challenge is of kind %s", c.Kind)
			}
			w.in(w.spire, "keylime")
			if !maps.Equal(pinned, w.content()) {
				t.Error("a login with a pinned AK wrote something")
			}
			w.write("role/keylime", map[string]any{"always_activate": true})
			if c := w.pose(w.spire, "keylime"); c.Kind != attest.KindActivate {
				t.Fatalf("always_activate gives kind %s", c.Kind)
			}
			w.in(w.spire, "keylime")
		})
	}
}

func TestAuth(t *testing.T) {
	w := newPlainWorld(t)
	c := w.pose(w.spire, "keylime")
	keys := [][]byte{{1}, {2}}
	auth, err := w.login(w.spire.AnswerWith(t, c, attest.LoginRequest{V: 1, Role: "keylime", Audience: audience, Keys: keys}, nil))
	check(t, err)
	one, two := sha256.Sum256(keys[0]), sha256.Sum256(keys[1])
	want := map[string]string{
		"host": "spire", "role": "keylime", "boot": "not-checked", "ek_class": "virtual",
		"key_sha256": hex.EncodeToString(one[:]) + "," + hex.EncodeToString(two[:]), "key_claim": "claimed,claimed",
	}
	if !maps.Equal(auth.Metadata, want) {
		t.Errorf("metadata %v", auth.Metadata)
	}
	if auth.Alias.Name != w.id(w.spire) || !maps.Equal(auth.Alias.Metadata, map[string]string{"host": "spire"}) {
		t.Errorf("alias %+v", auth.Alias)
	}
	if !slices.Equal(auth.Policies, []string{"keylime", "omen-host-spire"}) {
		t.Errorf("policies %v", auth.Policies)
	}
	if auth.TokenType != logical.TokenTypeBatch || auth.TTL != 2*time.Minute || auth.Renewable || auth.Period != 0 {
		t.Errorf("token %+v", auth)
	}
	w.write("role/keylime", map[string]any{"host_policy": false, "token_ttl": "15m", "token_type": "service"})
	auth = w.in(w.spire, "keylime")
	if !slices.Equal(auth.Policies, []string{"keylime"}) || auth.TTL != 15*time.Minute || auth.Renewable {
		t.Errorf("token %+v", auth)
	}
	if _, there := auth.Metadata["key_sha256"]; there {
		t.Errorf("metadata of no keys: %v", auth.Metadata)
	}
}

func TestTokenIsBoundToTheAddress(t *testing.T) {
	w := newPlainWorld(t)
	w.write("role/keylime", map[string]any{"token_strictly_bind_ip": true})
	auth := w.in(w.spire, "keylime")
	if len(auth.BoundCIDRs) != 1 || auth.BoundCIDRs[0].String() != "192.0.2.7" {
		t.Errorf("bound to %v", auth.BoundCIDRs)
	}
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", audience)
	_, err := w.b.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.UpdateOperation, Path: loginPath, Data: body(t, m), Storage: w.s,
	})
	wantRefusal(t, err, attest.RuleInternal)
}

func TestRenewIsRefused(t *testing.T) {
	w := newPlainWorld(t)
	auth := w.in(w.spire, "keylime")
	resp, err := w.b.HandleRequest(t.Context(), &logical.Request{Operation: logical.RenewOperation, Auth: auth, Storage: w.s})
	check(t, err)
	if !resp.IsError() || resp.Auth != nil {
		t.Errorf("renewal gives %+v", resp)
	}
}

// Each row bends one thing of a good challenge request.
func TestChallengeRefuses(t *testing.T) {
	w := newPlainWorld(t)
	good := w.spire.Request("keylime")
	expired := w.vendor.Certify(t, w.spire.EK.Public(), func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) })
	for _, row := range []struct {
		name string
		bend func(*attest.ChallengeRequest)
		raw  func(map[string]any)
		want attest.Rule
	}{
		{name: "version 2", bend: func(m *attest.ChallengeRequest) { m.V = 2 }, want: attest.RuleSyntax},
		{name: "no certificate", bend: func(m *attest.ChallengeRequest) { m.EKCertificate = nil }, want: attest.RuleSyntax},
		{name: "long certificate", bend: func(m *attest.ChallengeRequest) { m.EKCertificate = make([]byte, 5000) }, want: attest.RuleSize},
		{name: "long AK", bend: func(m *attest.ChallengeRequest) { m.AKPublic = make([]byte, 600) }, want: attest.RuleSize},
		{name: "five intermediates", bend: func(m *attest.ChallengeRequest) { m.Intermediates = make([][]byte, 5) }, want: attest.RuleSize},
		{name: "unknown field", raw: func(d map[string]any) { d["host"] = "spire" }, want: attest.RuleSyntax},
		{name: "field of the login", raw: func(d map[string]any) { d["quote"] = "AA==" }, want: attest.RuleSyntax},
		{name: "field in upper case", raw: func(d map[string]any) { d["Role"] = "other" }, want: attest.RuleSyntax},
		{name: "not base64", raw: func(d map[string]any) { d["ak_public"] = "\x1b[2J" }, want: attest.RuleSyntax},
		{name: "version is text", raw: func(d map[string]any) { d["v"] = "\x1b[2J" }, want: attest.RuleSyntax},
		{name: "role is a list", raw: func(d map[string]any) { d["role"] = []any{"a", map[string]any{}} }, want: attest.RuleSyntax},
		{name: "empty", raw: func(d map[string]any) { clear(d) }, want: attest.RuleSyntax},
		{name: "no such role", bend: func(m *attest.ChallengeRequest) { m.Role = "other" }, want: attest.RuleRole},
		{name: "AK with a bit bent", bend: func(m *attest.ChallengeRequest) { m.AKPublic[5] ^= 1 }, want: attest.RuleAKShape},
		{name: "software EK", bend: func(m *attest.ChallengeRequest) { m.EKCertificate = provertest.SelfSign(t, w.spire.EK) }, want: attest.RuleEKCertificate},
		{name: "expired EK", bend: func(m *attest.ChallengeRequest) { m.EKCertificate = expired }, want: attest.RuleEKCertificate},
		{name: "malformed EK", bend: func(m *attest.ChallengeRequest) { m.EKCertificate = []byte{0x30, 0x80} }, want: attest.RuleEKCertificate},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := good
			m.AKPublic = bytes.Clone(good.AKPublic)
			if row.bend != nil {
				row.bend(&m)
			}
			data := body(t, m)
			if row.raw != nil {
				row.raw(data)
			}
			_, err := w.request(logical.UpdateOperation, challengePath, data)
			wantRefusal(t, err, row.want)
		})
	}
	if strings.Contains(w.logged.String(), "\x1b") {
		t.Error("the log has a client's escape sequence")
	}
}

// A root that is taken away counts at the next challenge.
func TestRootRemovedSince(t *testing.T) {
	w := newPlainWorld(t)
	w.pose(w.spire, "keylime")
	w.write("config", map[string]any{"virtual_roots": ""})
	_, err := w.challenge(w.spire.Request("keylime"))
	wantRefusal(t, err, attest.RuleEKCertificate)
	w.write("config", map[string]any{"virtual_roots": w.vendor.PEM()})
	w.pose(w.spire, "keylime")
}

// Each row bends one thing of a good login; what the TPM signs is bent before it
// is signed. The table of package verify has the finer cases.
func TestLoginRefuses(t *testing.T) {
	w := newPlainWorld(t)
	for _, row := range []struct {
		name   string
		signed func(*provertest.Attestation)
		sent   func(*attest.LoginRequest)
		raw    func(map[string]any)
		known  attest.Rule // expected when the AK is pinned
		first  attest.Rule // expected when it is not; as known when empty
	}{
		{name: "no quote", sent: func(m *attest.LoginRequest) { m.Quote = nil }, known: attest.RuleSyntax},
		{name: "long quote", sent: func(m *attest.LoginRequest) { m.Quote = make([]byte, 1025) }, known: attest.RuleSize},
		{name: "audience with escapes", sent: func(m *attest.LoginRequest) { m.Audience = "https://\x1b[2J" }, known: attest.RuleSyntax},
		{name: "unknown field", raw: func(d map[string]any) { d["tpm_id"] = w.id(w.second) }, known: attest.RuleSyntax},
		{name: "challenge bent", sent: func(m *attest.LoginRequest) { m.Challenge[20] ^= 1 }, known: attest.RuleChallenge},
		{name: "counter bent", sent: func(m *attest.LoginRequest) { m.Challenge[7] ^= 1 }, known: attest.RuleChallenge},
		{name: "challenge cut", sent: func(m *attest.LoginRequest) { m.Challenge = m.Challenge[:sealedSize-1] }, known: attest.RuleChallenge},
		{name: "challenge of ours with a byte more", sent: func(m *attest.LoginRequest) { m.Challenge = append(m.Challenge, 0) }, known: attest.RuleChallenge},
		{name: "quote bent", sent: func(m *attest.LoginRequest) { m.Quote[70] ^= 1 }, known: attest.RuleSignature},
		{name: "signature of another key", sent: func(m *attest.LoginRequest) { m.Signature = w.second.Sign(t, m.Quote) }, known: attest.RuleSignature},
		{name: "forged magic", signed: func(a *provertest.Attestation) { a.Magic++ }, known: attest.RuleQuoteType},
		{name: "AK elsewhere", signed: func(a *provertest.Attestation) { a.Signer[5] ^= 1 }, known: attest.RuleAKHierarchy},
		{name: "extraData bent", signed: func(a *provertest.Attestation) { a.ExtraData[0] ^= 1 }, known: attest.RuleFreshness, first: attest.RuleEKAK},
		{name: "keys added", sent: func(m *attest.LoginRequest) { m.Keys = [][]byte{{1}} }, known: attest.RuleFreshness, first: attest.RuleEKAK},
		{name: "fewer PCRs", signed: func(a *provertest.Attestation) { a.Selections[0].Bitmap[0] = 1 }, known: attest.RulePCRSelection},
	} {
		for _, kind := range []attest.Kind{attest.KindActivate, attest.KindKnown} {
			want := row.known
			if kind == attest.KindActivate && row.first != "" {
				want = row.first
			}
			t.Run(row.name+" "+string(kind), func(t *testing.T) {
				w.write("role/keylime", map[string]any{"always_activate": kind == attest.KindActivate})
				w.in(w.spire, "keylime")
				before := w.content()
				m := w.spire.AnswerWith(t, w.pose(w.spire, "keylime"), attest.LoginRequest{V: 1, Role: "keylime", Audience: audience}, row.signed)
				if row.sent != nil {
					row.sent(&m)
				}
				data := body(t, m)
				if row.raw != nil {
					row.raw(data)
				}
				resp, err := w.request(logical.UpdateOperation, loginPath, data)
				wantRefusal(t, err, want)
				if resp != nil {
					t.Errorf("response %+v with an error", resp)
				}
				if !maps.Equal(before, w.content()) {
					t.Error("a refused login changed what is stored")
				}
			})
		}
	}
	if strings.Contains(w.logged.String(), "\x1b") {
		t.Error("the log has a client's escape sequence")
	}
}

func TestAudience(t *testing.T) {
	w := newPlainWorld(t)
	// The host was lured: it proves itself to another server, which relays.
	m := w.spire.Answer(t, w.pose(w.spire, "keylime"), "keylime", "https://evil.example:8200||auth/tpm")
	_, err := w.login(m)
	wantRefusal(t, err, attest.RuleAudience)
	w.write("config", map[string]any{"audiences": []string{}})
	w.out(w.spire, "keylime", attest.RuleAudience)
}

// Authorisation goes by records alone.
func TestWhoMayLogIn(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			w.write("role/strong", map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "0"})
			w.out(w.second, "keylime", attest.RuleHostUnknown)
			w.out(w.spire, "strong", attest.RuleRole)

			w.write("host/auth", map[string]any{"tpm_ids": []string{w.id(w.second)}, "roles": "strong"})
			w.in(w.second, "strong")
			w.out(w.second, "keylime", attest.RuleRole)

			w.must(logical.DeleteOperation, "host/auth", nil)
			w.out(w.second, "strong", attest.RuleHostDisabled)

			w.lift(w.second)
			w.out(w.second, "strong", attest.RuleHostUnknown)
			w.write("host/auth", map[string]any{"tpm_ids": []string{w.id(w.second)}})
			w.out(w.second, "strong", attest.RuleRole)
		})
	}
}

func TestReservedTPMDoesNotLogIn(t *testing.T) {
	w := newPlainWorld(t)
	w.write("host/spire", map[string]any{"tpm_ids": []string{w.id(w.spire), w.id(w.second)}})
	w.in(w.spire, "keylime")
	w.out(w.second, "keylime", attest.RuleTPMTaken)
}

// One TPM, two EKs: the second EK shows the AK that the first has pinned.
func TestAKPinnedToAnotherTPM(t *testing.T) {
	for name, s := range storages(t) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			w.in(w.spire, "keylime")
			w.write("host/auth", map[string]any{"tpm_ids": w.id(w.second), "roles": "keylime"})
			w.second.StealAK(w.spire)
			w.out(w.second, "keylime", attest.RuleTPMTaken)
			w.must(logical.DeleteOperation, "host/spire", nil)
			w.out(w.second, "keylime", attest.RuleTPMTaken) // the tombstone keeps the AK
			w.lift(w.spire)
			w.in(w.second, "keylime")
		})
	}
}

// A new AK needs an activation and replaces the pin before.
func TestNewAKNeedsActivation(t *testing.T) {
	w := newPlainWorld(t)
	w.in(w.spire, "keylime")
	before := w.keys()
	known := w.pose(w.spire, "keylime")
	old := *w.spire
	w.spire.NewAK(t)
	if c := w.pose(w.spire, "keylime"); c.Kind != attest.KindActivate {
		t.Fatalf("another AK gets kind %s", c.Kind)
	}
	w.in(w.spire, "keylime")
	if len(w.keys()) != len(before) {
		t.Errorf("stored: %v, before: %v", w.keys(), before)
	}
	// What was known when the challenge was made is not any more.
	_, err := w.login(old.Answer(t, known, "keylime", audience))
	wantRefusal(t, err, attest.RuleState)
}

func TestStateChangedSinceTheChallenge(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*world)
		want   attest.Rule
	}{
		{"role changed", func(w *world) { w.write("role/keylime", map[string]any{"token_ttl": 60}) }, attest.RuleState},
		{"role deleted", func(w *world) { w.must(logical.DeleteOperation, "role/keylime", nil) }, attest.RuleState},
		{"pin gone", func(w *world) {
			w.must(logical.DeleteOperation, "host/spire", nil)
			w.lift(w.spire)
			w.write("host/spire", map[string]any{"tpm_ids": w.id(w.spire), "roles": "keylime"})
		}, attest.RuleState},
		{"host deleted", func(w *world) { w.must(logical.DeleteOperation, "host/spire", nil) }, attest.RuleHostDisabled},
		{"host quarantined", func(w *world) { w.write("host/spire/quarantine", nil) }, attest.RuleHostDisabled},
		{"role taken away", func(w *world) { w.write("host/spire", map[string]any{"roles": ""}) }, attest.RuleRole},
		{"TPM given to another host", func(w *world) {
			w.must(logical.DeleteOperation, "host/spire", nil)
			w.lift(w.spire)
			w.write("host/other", map[string]any{"tpm_ids": w.id(w.spire), "roles": ""})
		}, attest.RuleRole},
		{"audience removed", func(w *world) { w.write("config", map[string]any{"audiences": ""}) }, attest.RuleAudience},
		{"role written again as it was", func(w *world) { w.write("role/keylime", map[string]any{"pcrs": "0,2,4,7"}) }, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newPlainWorld(t)
			w.in(w.spire, "keylime")
			c := w.pose(w.spire, "keylime")
			row.change(w)
			_, err := w.login(w.spire.Answer(t, c, "keylime", audience))
			if row.want == "" {
				check(t, err)
				return
			}
			wantRefusal(t, err, row.want)
		})
	}
}

func TestBootPolicy(t *testing.T) {
	w := newPlainWorld(t)
	zero := sha256.Sum256(make([]byte, 4*32))
	accepted := hex.EncodeToString(zero[:])
	w.write("host/spire", map[string]any{"pcr_digests": []string{strings.Repeat("ab", 32), strings.ToUpper(accepted)}})
	if auth := w.in(w.spire, "keylime"); auth.Metadata["boot"] != "accepted" {
		t.Errorf("metadata %v", auth.Metadata)
	}
	w.write("host/spire", map[string]any{"pcr_digests": strings.Repeat("ab", 32)})
	w.out(w.spire, "keylime", attest.RuleEventLogNeeded)
	m := attest.LoginRequest{V: 1, Role: "keylime", Audience: audience, PCRs: make([][]byte, 4)}
	for i := range m.PCRs {
		m.PCRs[i] = make([]byte, 32)
	}
	_, err := w.login(w.spire.AnswerWith(t, w.pose(w.spire, "keylime"), m, nil))
	wantRefusal(t, err, attest.RuleBootPolicy)
}

// What an index says without the record it points to admits nobody.
func TestIndexWithoutRecord(t *testing.T) {
	w := newPlainWorld(t)
	check(t, w.s.Delete(t.Context(), "host/spire"))
	w.cold()
	w.out(w.spire, "keylime", attest.RuleHostUnknown)
	check(t, save(t.Context(), w.s, "host/spire", host{TPMIDs: []attest.TPMID{attest.TPMID(w.id(w.second))}, Roles: []string{"keylime"}}))
	w.cold()
	w.out(w.spire, "keylime", attest.RuleHostUnknown)
}

// No detail of a refusal reaches the host, all of it reaches the operator.
func TestDetailIsForTheLog(t *testing.T) {
	w := newPlainWorld(t)
	w.out(w.second, "keylime", attest.RuleHostUnknown)
	log := w.logged.String()
	if !strings.Contains(log, `"rule":"host-unknown"`) || !strings.Contains(log, w.id(w.second)) {
		t.Errorf("log: %s", log)
	}
}

func TestHelpDoesNotRunAnything(t *testing.T) {
	w := newPlainWorld(t)
	for _, path := range []string{"", "config", "role/x", "role/", "host/x", "host/", "challenge", "login"} {
		if resp := w.must(logical.HelpOperation, path, nil); resp.Data["help"] == "" {
			t.Errorf("no help for %q", path)
		}
	}
}
