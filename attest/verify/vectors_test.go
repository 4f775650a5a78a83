// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/attest/verify/provertest"
	"funlab.casa/omen/tpmsim"
)

const vectors = "../testdata/vectors"

var update = flag.Bool("update", false, "record the vectors of "+vectors+" anew from swtpm")

// judge plays a recorded conversation from its first byte to its last.
func judge(v *provertest.Vector) (provertest.Outcome, error) {
	var none provertest.Outcome
	if err := v.Request.Check(); err != nil {
		return none, err
	}
	vendor, err := verify.ParseRoots(hardware([]byte(v.Roots)), nil)
	if err != nil {
		return none, err
	}
	ek, err := verify.CheckEK(v.Request.EKCertificate, v.Request.Intermediates, vendor, v.Now)
	if err != nil {
		return none, err
	}
	ak, err := attest.ParseAK(v.Request.AKPublic)
	if err != nil {
		return none, err
	}
	q, err := verify.Login(&v.Login, verify.Challenge{
		Kind: v.Kind, AK: ak, Secret: v.S, Selection: v.Selection,
	}, v.Audiences)
	if err != nil {
		return none, err
	}
	return provertest.Outcome{
		TPMID: ek.TPMID, PCRDigest: hex.EncodeToString(q.PCRDigest[:]),
		ResetCount: q.ResetCount, RestartCount: q.RestartCount,
	}, nil
}

func TestVectors(t *testing.T) {
	if *update {
		record(t)
	}
	for name, v := range provertest.Vectors(t, vectors) {
		t.Run(name, func(t *testing.T) {
			got, err := judge(v)
			wantRule(t, err, v.Expect.Rule)
			if got.Rule = v.Expect.Rule; got != v.Expect {
				t.Errorf("got %+v, want %+v", got, v.Expect)
			}
		})
	}
}

// record has swtpm play every conversation anew.
func record(t *testing.T) {
	t.Helper()
	check(t, os.RemoveAll(vectors))
	check(t, os.MkdirAll(vectors, 0o755))
	tpm, ca := tpmsim.Start(t), tpmsim.TestCA(t)
	rsa, p384 := provertest.RSA(t, tpm), provertest.P384(t, tpm)
	base := provertest.Vector{
		Now: time.Now().UTC().Truncate(time.Second), Roots: string(ca.PEM()),
		Audiences: []string{audience}, Selection: selection,
	}
	good := map[string]*provertest.Vector{
		"activate-rsa2048": converse(t, base, rsa, attest.KindActivate, "RSA-2048 EK, first login"),
		"activate-p384":    converse(t, base, p384, attest.KindActivate, "P-384 EK, first login"),
		"known":            converse(t, base, rsa, attest.KindKnown, "pinned AK"),
	}
	for name, v := range good {
		var err error
		v.Expect, err = judge(v)
		check(t, err)
		v.Write(t, filepath.Join(vectors, name+".json"))
	}
	recordBent(t, good, provertest.P384(t, tpmsim.Device(t, 1)))
	recordOther(t, good["known"], rsa, tpm)
}

func converse(t *testing.T, v provertest.Vector, d *provertest.Device, kind attest.Kind, about string) *provertest.Vector {
	t.Helper()
	vendor, err := verify.ParseRoots(hardware([]byte(v.Roots)), nil)
	check(t, err)
	c, sealed := pose(t, kind, d.EKCertificate, d.AK, vendor)
	v.About, v.Kind, v.S, v.Request = about, kind, sealed.Secret, d.Request("keylime")
	v.Login = d.Answer(t, c, "keylime", audience, [][]byte{{1}, {2}})
	return &v
}

// recordBent bends one thing of a good conversation at a time.
func recordBent(t *testing.T, good map[string]*provertest.Vector, other *provertest.Device) {
	t.Helper()
	for _, row := range []struct {
		name, of, about string
		want            attest.Rule
		bend            func(*provertest.Vector)
	}{
		{"version", "known", "version 2", attest.RuleSyntax, func(v *provertest.Vector) { v.Login.V = 2 }},
		{"quote-long", "known", "quote longer than its bound", attest.RuleSize, func(v *provertest.Vector) { v.Login.Quote = make([]byte, attest.MaxQuote+1) }},
		{"ek-bent", "activate-rsa2048", "one bit of the EK certificate's signature", attest.RuleEKCertificate, func(v *provertest.Vector) { v.Request.EKCertificate = flip(v.Request.EKCertificate, -1) }},
		{"ek-expired", "activate-rsa2048", "judged before the EK certificate was issued", attest.RuleEKCertificate, func(v *provertest.Vector) { v.Now = v.Now.AddDate(-1, 0, 0) }},
		{"ek-no-roots", "activate-p384", "no vendor is believed", attest.RuleEKCertificate, func(v *provertest.Vector) { v.Roots = "" }},
		{"ak-unrestricted", "known", "AK without the attribute restricted", attest.RuleAKShape, func(v *provertest.Vector) { v.Request.AKPublic[5] &^= 1 }},
		{"ak-trailing", "known", "byte after the AK's public area", attest.RuleAKShape, func(v *provertest.Vector) { v.Request.AKPublic = append(v.Request.AKPublic, 0) }},
		{"ak-of-another-tpm", "known", "AK of another TPM", attest.RuleSignature, func(v *provertest.Vector) { v.Request.AKPublic = other.AK.Public() }},
		{"quote-bent", "known", "one bit of the quote", attest.RuleSignature, func(v *provertest.Vector) { v.Login.Quote = flip(v.Login.Quote, 100) }},
		{"signature-bent", "known", "one bit of the signature", attest.RuleSignature, func(v *provertest.Vector) { v.Login.Signature = flip(v.Login.Signature, -1) }},
		{"signature-algorithm", "known", "signature that names another algorithm", attest.RuleSignature, func(v *provertest.Vector) { v.Login.Signature[1] = 0x14 }},
		{"secret-unproven", "activate-p384", "S is not the one that was quoted", attest.RuleEKAK, func(v *provertest.Vector) { v.S = flip(v.S, 0) }},
		{"replay", "known", "quote of an earlier challenge", attest.RuleFreshness, func(v *provertest.Vector) { v.S = flip(v.S, 0) }},
		{"keys", "known", "keys that were not quoted", attest.RuleFreshness, func(v *provertest.Vector) { v.Login.Keys = v.Login.Keys[:1] }},
		{"event-log-hash", "known", "hash of another event log", attest.RuleFreshness, func(v *provertest.Vector) { v.Login.EventLogHash = flip(v.Login.EventLogHash, 0) }},
		{"audience-rewritten", "known", "relayed with the audience rewritten", attest.RuleFreshness, func(v *provertest.Vector) { v.Login.Audience = "https://evil.example:8200||auth/tpm" }},
		{"audience-foreign", "known", "relayed as it was", attest.RuleAudience, func(v *provertest.Vector) { v.Audiences = []string{"https://other.example:8200||auth/tpm"} }},
		{"pcrs-more", "known", "quote over more PCRs than asked for", attest.RulePCRSelection, func(v *provertest.Vector) { v.Selection.PCRs = v.Selection.PCRs[:2] }},
		{"pcrs-bank", "known", "quote over another bank", attest.RulePCRSelection, func(v *provertest.Vector) { v.Selection.Bank = "sha384" }},
	} {
		v := good[row.of].Clone(t)
		row.bend(v)
		writeRefused(t, v, row.name, row.about, row.want)
	}
}

// recordOther records what a real TPM signs that is not a quote for us.
func recordOther(t *testing.T, known *provertest.Vector, d *provertest.Device, tpm *tpmsim.TPM) {
	t.Helper()
	v := known.Clone(t)
	v.Login.Quote, v.Login.Signature = d.Certify(t, extraData(v))
	writeRefused(t, v, "certify-as-quote", "TPM2_Certify of the AK sent as a quote", attest.RuleQuoteType)

	owner := provertest.InHierarchy(t, tpm, tpm2.TPMRHOwner)
	v = known.Clone(t)
	v.Request.AKPublic = owner.AK.Public()
	v.Login = owner.Answer(t, attest.Challenge{
		Challenge: []byte{1}, PCRSelection: v.Selection, Kind: v.Kind, Nonce: v.S,
	}, "keylime", audience, v.Login.Keys)
	writeRefused(t, v, "ak-in-owner-hierarchy", "AK whose counters the TPM obfuscates", attest.RuleAKHierarchy)

	liar := newCast(t).liar
	v = known.Clone(t)
	v.Request.AKPublic = liar.AK.Public()
	v.Login = liar.AnswerWith(t, attest.Challenge{
		Challenge: []byte{1}, PCRSelection: v.Selection, Kind: v.Kind, Nonce: v.S,
	}, v.Login, func(a *provertest.Attestation) { a.Magic = 0 })
	writeRefused(t, v, "magic", "signed bytes that do not begin with TPM_GENERATED", attest.RuleQuoteType)
}

func extraData(v *provertest.Vector) []byte {
	h := attest.QuoteBinding(attest.Binding{Kind: v.Kind, Secret: v.S, Audience: v.Login.Audience, Keys: v.Login.Keys})
	return h[:]
}

func writeRefused(t *testing.T, v *provertest.Vector, name, about string, want attest.Rule) {
	t.Helper()
	v.About, v.Expect = about, provertest.Outcome{Rule: want}
	v.Write(t, filepath.Join(vectors, "refused-"+name+".json"))
}
