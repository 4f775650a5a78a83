// SPDX-License-Identifier: Apache-2.0

package verify_test

import (
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/attest/verify/provertest"
)

// onlyRefusals fails on an error that has no rule.
func onlyRefusals(t *testing.T, err error) {
	t.Helper()
	var r *attest.Refusal
	if err != nil && !errors.As(err, &r) {
		t.Fatalf("error without a rule: %v", err)
	}
}

// FuzzLogin signs whatever the fuzzer makes, so that every check behind the
// signature is reached. Only the one honest quote may pass.
func FuzzLogin(f *testing.F) {
	c := newCast(f)
	challenge, sealed := pose(f, attest.KindKnown, nil, c.liar.AK, nil)
	good := c.liar.Answer(f, challenge, "keylime", audience)
	f.Add(good.Quote)
	for _, v := range provertest.Vectors(f, vectors) {
		f.Add(v.Login.Quote)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := good
		m.Quote, m.Signature = raw, c.liar.Sign(t, raw)
		q, err := verify.Login(&m, sealed, []string{audience})
		onlyRefusals(t, err)
		if err == nil && string(q.ExtraData) != string(raw[44:76]) {
			t.Fatalf("accepted %x", raw)
		}
	})
}

// FuzzSignature must never find a signature that the AK did not make.
func FuzzSignature(f *testing.F) {
	c := newCast(f)
	challenge, sealed := pose(f, attest.KindKnown, nil, c.liar.AK, nil)
	good := c.liar.Answer(f, challenge, "keylime", audience)
	f.Add(c.second.Sign(f, good.Quote))
	for _, v := range provertest.Vectors(f, vectors) {
		f.Add(v.Login.Signature)
	}
	f.Fuzz(func(t *testing.T, signature []byte) {
		m := good
		m.Signature = signature
		_, err := verify.Login(&m, sealed, []string{audience})
		onlyRefusals(t, err)
		if err == nil {
			t.Fatalf("accepted %x", signature)
		}
	})
}

// FuzzEK must never find a certificate that no vendor signed.
func FuzzEK(f *testing.F) {
	c := newCast(f)
	stranger := provertest.NewVendor(f)
	vendor, err := verify.ParseRoots(hardware([]byte(stranger.PEM())), nil)
	check(f, err)
	f.Add(c.liar.EKCertificate, c.vendor.Certificate.Raw)
	ca := newAuthority(f, elliptic.P256())
	f.Add(ca.withSerial(f, c.liar.EKCertificate, 0x80, 1), ca.certificate.Raw)
	for _, name := range []string{"stm-rsa", "infineon-p256", "google-rsa"} {
		f.Add(realEK(f, name), []byte{})
	}
	for _, v := range provertest.Vectors(f, vectors) {
		f.Add(v.Request.EKCertificate, []byte{})
	}
	f.Fuzz(func(t *testing.T, der, intermediate []byte) {
		_, err := verify.CheckEK(der, [][]byte{intermediate}, vendor, time.Now())
		onlyRefusals(t, err)
		if err == nil {
			t.Fatalf("accepted %x", der)
		}
	})
}

// FuzzParseAK must take only what is byte for byte our template.
func FuzzParseAK(f *testing.F) {
	for _, v := range provertest.Vectors(f, vectors) {
		f.Add(v.Request.AKPublic)
	}
	f.Fuzz(func(t *testing.T, public []byte) {
		ak, err := attest.ParseAK(public)
		onlyRefusals(t, err)
		if err == nil && string(ak.Public()) != string(public) {
			t.Fatalf("%x became %x", public, ak.Public())
		}
	})
}

// FuzzDecodeLogin: what is accepted is within bounds and survives a round trip.
func FuzzDecodeLogin(f *testing.F) {
	for _, v := range provertest.Vectors(f, vectors) {
		seed(f, v.Login)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := attest.DecodeLoginRequest(b)
		onlyRefusals(t, err)
		if err == nil {
			roundTrip(t, m, attest.DecodeLoginRequest)
		}
	})
}

// FuzzDecodeChallenge is FuzzDecodeLogin for the first message.
func FuzzDecodeChallenge(f *testing.F) {
	for _, v := range provertest.Vectors(f, vectors) {
		seed(f, v.Request)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := attest.DecodeChallengeRequest(b)
		onlyRefusals(t, err)
		if err == nil {
			roundTrip(t, m, attest.DecodeChallengeRequest)
		}
	})
}

func seed(f *testing.F, message any) {
	f.Helper()
	b, err := json.Marshal(message)
	check(f, err)
	f.Add(b)
}

func roundTrip[M any](t *testing.T, m *M, decode func([]byte) (*M, error)) {
	t.Helper()
	b, err := json.Marshal(m)
	check(t, err)
	again, err := decode(b)
	wantRule(t, err, "")
	second, err := json.Marshal(again)
	check(t, err)
	if !reflect.DeepEqual(b, second) {
		t.Fatalf("%s became %s", b, second)
	}
}
