// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	goattest "github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/attest/verify/provertest"
	"funlab.casa/omen/tpmsim"
)

// pose makes a challenge as the server would, in both its halves.
func pose(t testing.TB, kind attest.Kind, ekCertificate []byte, ak *attest.AK, vendor *verify.Roots) (attest.Challenge, verify.Challenge) {
	t.Helper()
	secret := make([]byte, attest.SecretSize)
	if _, err := rand.Read(secret); err != nil {
		t.Fatal(err)
	}
	c := attest.Challenge{Challenge: []byte{1}, PCRSelection: selection, Kind: kind, Nonce: secret}
	if kind == attest.KindActivate {
		ek, err := verify.CheckEK(ekCertificate, nil, vendor, time.Now())
		check(t, err)
		c.Nonce = nil
		c.Credential, err = verify.Credential(rand.Reader, ek, ak, secret)
		check(t, err)
	}
	check(t, c.Check())
	return c, verify.Challenge{Kind: kind, AK: ak, Secret: secret, Selection: selection}
}

// A real TPM logs in, and go-attestation agrees about each of its quotes.
func TestLoginOfSWTPM(t *testing.T) {
	tpm, ca := tpmsim.Start(t), tpmsim.TestCA(t)
	vendor, err := verify.ParseRoots(hardware(ca.PEM()), nil)
	check(t, err)
	digest := sha256.Sum256([]byte("firmware"))
	check(t, tpm.Extend(4, tpm2.TPMAlgSHA256, digest[:]))
	keys := [][]byte{{1}, {2}}
	for _, row := range []struct {
		name   string
		kind   attest.Kind
		device *provertest.Device
	}{
		{"activate RSA-2048", attest.KindActivate, provertest.RSA(t, tpm)},
		{"activate P-384", attest.KindActivate, provertest.P384(t, tpm)},
		{"known", attest.KindKnown, provertest.RSA(t, tpm)},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, sealed := pose(t, row.kind, row.device.EKCertificate, row.device.AK, vendor)
			m := row.device.Answer(t, c, "keylime", audience, keys)
			q, err := verify.Login(&m, sealed, []string{"https://other:8200||auth/tpm", audience})
			wantRule(t, err, "")
			if q.ResetCount == 0 || q.Clock == 0 || q.Firmware == 0 {
				t.Errorf("facts are missing: %+v", q)
			}
			secondOpinion(t, tpm, row.device.AK, &m, q)
		})
	}
}

// secondOpinion has go-attestation judge the same quote against PCRs that are
// read from the TPM.
func secondOpinion(t *testing.T, tpm *tpmsim.TPM, ak *attest.AK, m *attest.LoginRequest, q *verify.Quote) {
	t.Helper()
	var pcrs []goattest.PCR
	for _, i := range selection.PCRs {
		value, err := tpm.PCR(i, tpm2.TPMAlgSHA256)
		check(t, err)
		pcrs = append(pcrs, goattest.PCR{Index: i, Digest: value, DigestAlg: crypto.SHA256})
	}
	public, err := goattest.ParseAKPublic(ak.Public())
	check(t, err)
	err = public.Verify(goattest.Quote{Quote: m.Quote, Signature: m.Signature}, pcrs, q.ExtraData)
	check(t, err)
	values := sha256.New()
	for _, p := range pcrs {
		values.Write(p.Digest)
	}
	if !bytes.Equal(values.Sum(nil), q.PCRDigest[:]) {
		t.Error("pcrDigest is not the hash of the PCRs")
	}
}

// A reboot shows in the counters: the AK is where they are true.
func TestQuoteCountsResets(t *testing.T) {
	tpm := tpmsim.Start(t)
	device := provertest.RSA(t, tpm)
	count := func() uint32 {
		c, sealed := pose(t, attest.KindKnown, nil, device.AK, nil)
		m := device.Answer(t, c, "keylime", audience, nil)
		q, err := verify.Login(&m, sealed, []string{audience})
		wantRule(t, err, "")
		return q.ResetCount
	}
	before := count()
	check(t, tpm.Reboot())
	if after := count(); after != before+1 {
		t.Errorf("resetCount went from %d to %d", before, after)
	}
}

// Each row bends one thing of a good login. What the TPM signs is bent before it
// is signed, so that only the named check can refuse it.
func TestLoginRefuses(t *testing.T) {
	type login struct {
		m         *attest.LoginRequest
		c         *verify.Challenge
		audiences *[]string
	}
	signed := func(bend func(*provertest.Attestation)) func(*provertest.Attestation) { return bend }
	c := newCast(t)
	for _, row := range []struct {
		name   string
		signed func(*provertest.Attestation)
		sent   func(login)
		kind   attest.Kind // of the challenge; both when empty
		want   attest.Rule
	}{
		{name: "good", want: ""},
		{name: "incomplete", sent: func(l login) { l.m.Quote = nil }, want: attest.RuleSyntax},
		{name: "long quote", sent: func(l login) { l.m.Quote = make([]byte, attest.MaxQuote+1) }, want: attest.RuleSize},

		{name: "quote bent", sent: func(l login) { l.m.Quote = flip(l.m.Quote, 60) }, want: attest.RuleSignature},
		{name: "signature bent", sent: func(l login) { l.m.Signature = flip(l.m.Signature, -1) }, want: attest.RuleSignature},
		{name: "signature by another AK", sent: func(l login) { l.m.Signature = c.second.Sign(t, l.m.Quote) }, want: attest.RuleSignature},
		{name: "signature that says RSASSA", sent: func(l login) { l.m.Signature[1] = 0x14 }, want: attest.RuleSignature},
		{name: "signature that says SHA-1", sent: func(l login) { l.m.Signature[3] = 0x04 }, want: attest.RuleSignature},
		{name: "signature without r", sent: func(l login) { l.m.Signature = []byte{0, 0x18, 0, 0x0b, 0, 0, 0, 1, 1} }, want: attest.RuleSignature},
		{name: "signature with r = 0", sent: func(l login) { clear(l.m.Signature[6:38]) }, want: attest.RuleSignature},
		{name: "signature with trailing byte", sent: func(l login) { l.m.Signature = append(l.m.Signature, 0) }, want: attest.RuleSignature},
		{name: "signature with long r", sent: func(l login) {
			l.m.Signature = append([]byte{0, 0x18, 0, 0x0b, 0, 33, 0}, l.m.Signature[6:]...)
		}, want: attest.RuleSignature},
		{name: "signature cut", sent: func(l login) { l.m.Signature = l.m.Signature[:20] }, want: attest.RuleSignature},

		{name: "magic of a software key", signed: signed(func(a *provertest.Attestation) { a.Magic = 0 }), want: attest.RuleQuoteType},
		{name: "certify sent as quote", signed: signed(func(a *provertest.Attestation) { a.Type = uint16(tpm2.TPMSTAttestCertify) }), want: attest.RuleQuoteType},
		{name: "creation sent as quote", signed: signed(func(a *provertest.Attestation) { a.Type = uint16(tpm2.TPMSTAttestCreation) }), want: attest.RuleQuoteType},
		{name: "trailing byte", signed: signed(func(a *provertest.Attestation) { a.Trailing = []byte{0} }), want: attest.RuleQuoteType},
		{name: "safe is 2", signed: signed(func(a *provertest.Attestation) { a.Safe = 2 }), want: attest.RuleQuoteType},
		{name: "pcrDigest of SHA-1", signed: signed(func(a *provertest.Attestation) { a.Digest = a.Digest[:20] }), want: attest.RuleQuoteType},
		{name: "pcrDigest of SHA-384", signed: signed(func(a *provertest.Attestation) { a.Digest = make([]byte, 48) }), want: attest.RuleQuoteType},
		{name: "17 selections", signed: signed(func(a *provertest.Attestation) {
			a.Selections = make([]provertest.PCRs, 17)
		}), want: attest.RuleQuoteType},

		{name: "AK in the owner hierarchy", signed: signed(func(a *provertest.Attestation) { a.Signer = ownerName(c.liar.AK) }), want: attest.RuleAKHierarchy},
		{name: "plain Name as signer", signed: signed(func(a *provertest.Attestation) { a.Signer = c.liar.AK.Name() }), want: attest.RuleAKHierarchy},
		{name: "no signer", signed: signed(func(a *provertest.Attestation) { a.Signer = nil }), want: attest.RuleAKHierarchy},

		{name: "S was not unwrapped", kind: attest.KindActivate, sent: func(l login) { l.c.Secret = flip(l.c.Secret, 0) }, want: attest.RuleEKAK},
		{name: "another nonce", kind: attest.KindKnown, sent: func(l login) { l.c.Secret = flip(l.c.Secret, 0) }, want: attest.RuleFreshness},
		{name: "keys changed", kind: attest.KindKnown, sent: func(l login) { l.m.Keys = [][]byte{{9}} }, want: attest.RuleFreshness},
		{name: "keys changed", kind: attest.KindActivate, sent: func(l login) { l.m.Keys = [][]byte{{9}} }, want: attest.RuleEKAK},
		{name: "event log hash changed", kind: attest.KindKnown, sent: func(l login) { l.m.EventLogHash = flip(l.m.EventLogHash, 0) }, want: attest.RuleFreshness},
		{name: "relayed, audience rewritten", kind: attest.KindKnown, sent: func(l login) {
			l.m.Audience = "https://evil.example:8200||auth/tpm"
		}, want: attest.RuleFreshness},
		{name: "answer to a challenge of the other kind", kind: attest.KindActivate, sent: func(l login) { l.c.Kind = attest.KindKnown }, want: attest.RuleFreshness},
		{name: "no extraData", kind: attest.KindKnown, signed: signed(func(a *provertest.Attestation) { a.ExtraData = nil }), want: attest.RuleFreshness},
		{name: "extraData with more", kind: attest.KindKnown, signed: signed(func(a *provertest.Attestation) { a.ExtraData = append(a.ExtraData, 0) }), want: attest.RuleFreshness},

		{name: "no PCRs", signed: signed(func(a *provertest.Attestation) { a.Selections = nil }), want: attest.RulePCRSelection},
		{name: "empty bitmap", signed: signed(func(a *provertest.Attestation) { a.Selections[0].Bitmap = make([]byte, 3) }), want: attest.RulePCRSelection},
		{name: "fewer PCRs", signed: signed(func(a *provertest.Attestation) { a.Selections[0].Bitmap[0] &^= 0x80 }), want: attest.RulePCRSelection},
		{name: "more PCRs", signed: signed(func(a *provertest.Attestation) { a.Selections[0].Bitmap[2] |= 1 }), want: attest.RulePCRSelection},
		{name: "short bitmap", signed: signed(func(a *provertest.Attestation) { a.Selections[0].Bitmap = a.Selections[0].Bitmap[:1] }), want: attest.RulePCRSelection},
		{name: "another bank", signed: signed(func(a *provertest.Attestation) { a.Selections[0].Bank = uint16(tpm2.TPMAlgSHA1) }), want: attest.RulePCRSelection},
		{name: "listed twice", signed: signed(func(a *provertest.Attestation) { a.Selections = append(a.Selections, a.Selections[0]) }), want: attest.RulePCRSelection},

		{name: "made for another server", sent: func(l login) { *l.audiences = []string{"https://spire.funlab.casa:8200||auth/other"} }, want: attest.RuleAudience},
		{name: "no audience configured", sent: func(l login) { *l.audiences = nil }, want: attest.RuleAudience},
	} {
		for _, kind := range []attest.Kind{attest.KindActivate, attest.KindKnown} {
			if row.kind != "" && row.kind != kind {
				continue
			}
			t.Run(row.name+" "+string(kind), func(t *testing.T) {
				challenge, sealed := pose(t, kind, c.liar.EKCertificate, c.liar.AK, roots(t, c.vendor.PEM()))
				m := c.liar.AnswerWith(t, challenge, attest.LoginRequest{V: 1, Role: "keylime", Audience: audience, Keys: [][]byte{{1}}}, row.signed)
				audiences := []string{audience}
				if row.sent != nil {
					row.sent(login{m: &m, c: &sealed, audiences: &audiences})
				}
				q, err := verify.Login(&m, sealed, audiences)
				wantRule(t, err, row.want)
				if (q == nil) != (row.want != "") {
					t.Errorf("quote %v with %v", q, err)
				}
			})
		}
	}
}

// The AK of one TPM with the EK of another: each has the other's half.
func TestEKOfOneAKOfAnother(t *testing.T) {
	c := newCast(t)
	vendor := roots(t, c.vendor.PEM())
	thief := *c.liar
	thief.StealAK(c.second)
	challenge, sealed := pose(t, attest.KindActivate, c.second.EKCertificate, c.liar.AK, vendor)
	m := c.liar.Answer(t, challenge, "keylime", audience)
	_, err := verify.Login(&m, sealed, []string{audience})
	wantRule(t, err, attest.RuleEKAK)

	// Activation answered for another AK.
	challenge, sealed = pose(t, attest.KindActivate, c.liar.EKCertificate, c.liar.AK, vendor)
	m = thief.Answer(t, challenge, "keylime", audience)
	_, err = verify.Login(&m, sealed, []string{audience})
	wantRule(t, err, attest.RuleSignature)
}

// Every cut of a quote and of a signature is refused, never a panic.
func TestLoginRefusesEveryCut(t *testing.T) {
	c := newCast(t)
	challenge, sealed := pose(t, attest.KindKnown, nil, c.liar.AK, nil)
	good := c.liar.Answer(t, challenge, "keylime", audience)
	for i := range good.Quote {
		m := good
		m.Quote = good.Quote[:i]
		m.Signature = c.liar.Sign(t, m.Quote)
		want := attest.RuleQuoteType
		if i == 0 {
			want = attest.RuleSyntax
		}
		_, err := verify.Login(&m, sealed, []string{audience})
		wantRule(t, err, want)
	}
	for i := 1; i < len(good.Signature); i++ {
		m := good
		m.Signature = good.Signature[:i]
		_, err := verify.Login(&m, sealed, []string{audience})
		wantRule(t, err, attest.RuleSignature)
	}
}

func ownerName(ak *attest.AK) []byte {
	h := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHOwner)), ak.Name()...))
	return append([]byte{0, 0x0b}, h[:]...)
}
