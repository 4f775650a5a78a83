// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
	prover "funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// machine is a host with a TPM, played by the host's own code.
type machine struct {
	*prover.Prover
	identity *prover.Identity
}

func openMachine(t *testing.T, tpm *tpmsim.TPM, ek string) *machine {
	t.Helper()
	p, err := prover.Open(t.Context(), prover.Config{Device: tpm.Device(), EK: ek, EventLog: "none", StateDir: t.TempDir()})
	check(t, err)
	t.Cleanup(func() { check(t, p.Close()) })
	identity, err := p.Identity(t.Context(), attest.Selection{Bank: "sha256", PCRs: []int{0, 2, 4, 7}})
	check(t, err)
	return &machine{Prover: p, identity: identity}
}

// prove answers a new challenge, which must be of this kind.
func (s *server) prove(m *machine, role string, kind attest.Kind, keys ...[]byte) *attest.LoginRequest {
	s.t.Helper()
	c, err := s.challenge(s.request(m, role))
	check(s.t, err)
	if c.Kind != kind {
		s.t.Fatalf("challenge of kind %s, want %s", c.Kind, kind)
	}
	login, err := m.Login(s.t.Context(), prover.Claim{Role: role, Audience: audience, Keys: keys}, c)
	check(s.t, err)
	return login
}

func (s *server) request(m *machine, role string) *attest.ChallengeRequest {
	s.t.Helper()
	request, err := m.Request(s.t.Context(), role)
	check(s.t, err)
	return request
}

// in lets a machine log in where it must get in.
func (s *server) in(m *machine, role string, kind attest.Kind, keys ...[]byte) *api.SecretAuth {
	s.t.Helper()
	auth, err := s.login(s.prove(m, role, kind, keys...))
	check(s.t, err)
	return auth
}

// Real TPMs log in to a real OpenBao.
func TestBao(t *testing.T) {
	spire, other := openMachine(t, tpmsim.Device(t, 0), ""), openMachine(t, tpmsim.Device(t, 1), "p384")
	s := startBao(t)
	check(t, s.root.Sys().EnableAuthWithOptions("tpm", &api.EnableAuthOptions{Type: pluginName}))
	s.write("auth/tpm/config", map[string]any{"virtual_roots": string(tpmsim.TestCA(t).PEM()), "audiences": audience})
	secret := s.write("auth/tpm/role/keylime", map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "0,2,4,7", "token_policies": "keylime"})
	if secret == nil || len(secret.Warnings) != 2 { // boot not checked, class virtual
		t.Errorf("role warns %v", secret)
	}
	s.write("auth/tpm/role/service", map[string]any{"way_in": "allow-list", "ek_classes": "virtual", "pcrs": "0", "token_type": "service"})
	if secret := s.write("auth/tpm/host/spire", map[string]any{"tpm_ids": string(spire.identity.TPMID), "roles": "keylime,service"}); secret != nil {
		t.Errorf("enrolment says %v", secret)
	}
	key := []byte{1}
	auth := s.in(spire, "keylime", attest.KindActivate, key)
	s.checkToken(auth, string(spire.identity.TPMID))
	s.checkRenewal(auth)

	// In this order: each finds the server as the one before left it.
	t.Run("known", func(t *testing.T) { s.on(t).knows(spire) })
	t.Run("P-384", func(t *testing.T) { s.on(t).activatesP384(other) })
	t.Run("refusals", func(t *testing.T) { s.on(t).refuses(spire, other) })
	t.Run("reload", func(t *testing.T) { s.on(t).reloads(spire) })
	t.Run("quota of a role", func(t *testing.T) { s.on(t).countsPerRole(spire) })
	t.Run("mount made anew", func(t *testing.T) { s.on(t).mountsAnew(spire) })
}

func (s *server) on(t *testing.T) *server { return &server{t: t, root: s.root, anon: s.anon} }

func (s *server) knows(spire *machine) {
	if auth := s.in(spire, "keylime", attest.KindKnown); auth.Metadata["boot"] != "not-checked" {
		s.t.Errorf("metadata %v", auth.Metadata)
	}
	s.write("auth/tpm/host/spire", map[string]any{"pcr_digests": hex.EncodeToString(spire.identity.PCRDigest)})
	if auth := s.in(spire, "keylime", attest.KindKnown); auth.Metadata["boot"] != "accepted" {
		s.t.Errorf("metadata %v", auth.Metadata)
	}
	_, err := s.login(s.prove(spire, "service", attest.KindKnown))
	wantHTTP(s.t, err, attest.RuleEventLogNeeded) // other PCRs, another digest
	s.write("auth/tpm/host/spire", map[string]any{"pcr_digests": ""})
	s.checkRenewal(s.in(spire, "service", attest.KindKnown))
}

func (s *server) activatesP384(other *machine) {
	_, err := s.login(s.prove(other, "keylime", attest.KindActivate))
	wantHTTP(s.t, err, attest.RuleHostUnknown)
	s.write("auth/tpm/host/auth", map[string]any{"tpm_ids": string(other.identity.TPMID), "roles": "keylime"})
	if auth := s.in(other, "keylime", attest.KindActivate); auth.Metadata["host"] != "auth" {
		s.t.Errorf("metadata %v", auth.Metadata)
	}
	_, err = s.root.Logical().Write("auth/tpm/host/thief", map[string]any{"tpm_ids": string(other.identity.TPMID)})
	var e *api.ResponseError
	if !errors.As(err, &e) || e.StatusCode != http.StatusBadRequest {
		s.t.Errorf("a TPM with two hosts: %v", err)
	}
}

func (s *server) refuses(spire, other *machine) {
	m := s.prove(spire, "keylime", attest.KindKnown)
	_, err := s.login(m)
	check(s.t, err)
	_, err = s.login(m)
	wantHTTP(s.t, err, attest.RuleFreshness)

	m = s.prove(spire, "keylime", attest.KindKnown)
	m.Signature = s.prove(other, "keylime", attest.KindKnown).Signature
	_, err = s.login(m)
	wantHTTP(s.t, err, attest.RuleSignature)

	m = s.prove(spire, "keylime", attest.KindKnown)
	m.Keys = [][]byte{{1}}
	_, err = s.login(m)
	wantHTTP(s.t, err, attest.RuleFreshness)

	request := *s.request(spire, "keylime")
	request.EKCertificate = bytes.Repeat([]byte{1}, attest.MaxCertificate+1)
	_, err = s.challenge(&request)
	wantHTTP(s.t, err, attest.RuleSize)
	request.V = 2
	_, err = s.challenge(&request)
	wantHTTP(s.t, err, attest.RuleSyntax)
	_, err = s.challenge(s.request(spire, "other"))
	wantHTTP(s.t, err, attest.RuleRole)
	s.refusesToStore(spire)
}

// refusesToStore asks for a challenge that OpenBao would keep for an hour.
func (s *server) refusesToStore(spire *machine) {
	wrapping, err := s.anon.Clone()
	check(s.t, err)
	wrapping.SetWrappingLookupFunc(func(string, string) string { return "1h" })
	_, err = wrapping.Logical().Write("auth/tpm/challenge", body(s.t, s.request(spire, "keylime")))
	wantHTTP(s.t, err, attest.RuleSyntax)
}

// A challenge dies with the process that made it; a pin does not.
func (s *server) reloads(spire *machine) {
	m := s.prove(spire, "keylime", attest.KindKnown)
	s.write("sys/plugins/reload/backend", map[string]any{"plugin": pluginName})
	_, err := s.login(m)
	wantHTTP(s.t, err, attest.RuleChallenge)
	s.in(spire, "keylime", attest.KindKnown)
}

func (s *server) countsPerRole(spire *machine) {
	s.write("sys/quotas/rate-limit/tpm", map[string]any{"path": "auth/tpm", "role": "keylime", "rate": 1, "interval": "1h"})
	var e *api.ResponseError
	for range 3 {
		if _, err := s.challenge(s.request(spire, "keylime")); errors.As(err, &e) {
			break
		}
	}
	if e == nil || e.StatusCode != http.StatusTooManyRequests {
		s.t.Errorf("the role's quota has no effect: %v", e)
	}
	_, err := s.challenge(s.request(spire, "service"))
	check(s.t, err)
}

func (s *server) mountsAnew(spire *machine) {
	m := s.prove(spire, "service", attest.KindKnown)
	check(s.t, s.root.Sys().DisableAuth("tpm"))
	check(s.t, s.root.Sys().EnableAuthWithOptions("tpm", &api.EnableAuthOptions{Type: pluginName}))
	_, err := s.login(m)
	wantHTTP(s.t, err, attest.RuleChallenge)
}

// checkToken looks at a first login's token from all sides.
func (s *server) checkToken(auth *api.SecretAuth, id string) {
	s.t.Helper()
	mounts, err := s.root.Sys().ListAuth()
	check(s.t, err)
	if v := mounts["tpm/"].RunningVersion; v != Version {
		s.t.Errorf("plugin runs as %s", v)
	}
	if auth.LeaseDuration != 120 || auth.Renewable {
		s.t.Errorf("token for %d s, renewable %v", auth.LeaseDuration, auth.Renewable)
	}
	if !slices.Equal(auth.Policies, []string{"default", "keylime", "omen-host-spire"}) {
		s.t.Errorf("policies %v", auth.Policies)
	}
	want := map[string]string{
		"host": "spire", "role": "keylime", "boot": "not-checked", "ek_class": "virtual", "key_claim": "claimed",
		"key_sha256": "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a",
	}
	if !maps.Equal(auth.Metadata, want) {
		s.t.Errorf("metadata %v", auth.Metadata)
	}
	lookup, err := s.root.Auth().Token().Lookup(auth.ClientToken)
	check(s.t, err)
	if lookup.Data["type"] != "batch" || lookup.Data["display_name"] != "tpm-spire" {
		s.t.Errorf("token %v", lookup.Data)
	}
	entity := s.write("identity/lookup/entity", map[string]any{"alias_name": id, "alias_mount_accessor": mounts["tpm/"].Accessor})
	aliases := fmt.Sprint(entity.Data["aliases"])
	alias := entity.Data["aliases"].([]any)[0].(map[string]any)
	if alias["name"] != id || fmt.Sprint(alias["metadata"]) != "map[host:spire]" {
		s.t.Errorf("aliases %s", aliases)
	}
}

// checkRenewal has the token ask for more time, which it must not get.
func (s *server) checkRenewal(auth *api.SecretAuth) {
	s.t.Helper()
	self, err := s.anon.Clone()
	check(s.t, err)
	self.SetToken(auth.ClientToken)
	secret, err := self.Auth().Token().RenewSelf(60)
	var e *api.ResponseError
	if !errors.As(err, &e) || e.StatusCode != http.StatusBadRequest {
		s.t.Errorf("renewal gives %+v, %v", secret, err)
	}
}
