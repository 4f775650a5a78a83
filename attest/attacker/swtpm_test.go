// SPDX-License-Identifier: Apache-2.0

package attacker_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/tpmsim"
)

// loadAK makes our AK in a real TPM until the test ends.
func loadAK(t *testing.T, tpm *tpmsim.TPM) (ak tpm2.AuthHandle, public []byte) {
	t.Helper()
	created, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(attest.AKTemplate()),
	}.Execute(tpm)
	check(t, err)
	t.Cleanup(func() { flush(t, tpm, created.ObjectHandle) })
	return tpm2.AuthHandle{Handle: created.ObjectHandle, Name: created.Name, Auth: tpm2.PasswordAuth(nil)}, created.OutPublic.Bytes()
}

func flush(t *testing.T, tpm *tpmsim.TPM, handle tpm2.TPMHandle) {
	t.Helper()
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
	check(t, err)
}

// twin is a TPM in software that is in the state in which a real one made this
// attestation.
func twin(t *testing.T, tpm *tpmsim.TPM, akPublic, raw []byte) *attacker.TPM {
	t.Helper()
	software := newTPM(t, nil, attacker.P256)
	if len(software.AK.Public) != len(akPublic) || !bytes.Equal(software.AK.Public[:20], akPublic[:20]) {
		t.Errorf("AK of another shape: %x, of swtpm %x", software.AK.Public, akPublic)
	}
	software.AK.Public = akPublic
	clock := raw[4+2+2+34+2+32:]
	software.Counters = attacker.Counters{
		Clock:    binary.BigEndian.Uint64(clock) - 1, // it goes on with each attestation
		Reset:    binary.BigEndian.Uint32(clock[8:]),
		Restart:  binary.BigEndian.Uint32(clock[12:]),
		Unsafe:   clock[16] == 0,
		Firmware: binary.BigEndian.Uint64(clock[17:]),
	}
	for pcr := range 24 {
		value, err := tpm.PCR(pcr, tpm2.TPMAlgSHA256)
		check(t, err)
		if pcr > 15 && !bytes.Equal(value, software.PCR(tpm2.TPMAlgSHA256, pcr)) {
			t.Errorf("PCR %d begins as %x", pcr, value)
		}
		software.SetPCR(tpm2.TPMAlgSHA256, pcr, value)
	}
	return software
}

// What a real TPM signs is byte for byte what the software one would sign.
func TestAttestationsOfSWTPM(t *testing.T) {
	tpm := tpmsim.Start(t)
	check(t, tpm.Extend(4, tpm2.TPMAlgSHA256, sum([]byte("boot loader"))))
	ak, public := loadAK(t, tpm)
	extraData := sum([]byte("binding"))
	for _, selection := range []attest.Selection{
		{Bank: "sha256", PCRs: []int{0, 2, 4, 7}}, {Bank: "sha256", PCRs: []int{0, 4, 8, 17, 23}},
	} {
		quote, err := tpm2.Quote{
			SignHandle: ak, QualifyingData: tpm2.TPM2BData{Buffer: extraData},
			InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: selection.TPM(),
		}.Execute(tpm)
		check(t, err)
		software := twin(t, tpm, public, quote.Quoted.Bytes())
		if got := software.Quote(extraData, selection).Bytes(); !bytes.Equal(got, quote.Quoted.Bytes()) {
			t.Errorf("quote\n%x, of swtpm\n%x", got, quote.Quoted.Bytes())
		}
		signature, err := software.AK.Sign(quote.Quoted.Bytes())
		check(t, err)
		if real := tpm2.Marshal(quote.Signature); len(signature) != len(real) || !bytes.Equal(signature[:6], real[:6]) {
			t.Errorf("signature %x, of swtpm %x", signature, real)
		}
	}
	certified, err := tpm2.Certify{
		ObjectHandle: ak, SignHandle: ak, QualifyingData: tpm2.TPM2BData{Buffer: extraData},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(tpm)
	check(t, err)
	software := twin(t, tpm, public, certified.CertifyInfo.Bytes())
	got := software.Certify(extraData, software.AK.Name(), tpm2.TPMRHEndorsement).Bytes()
	if !bytes.Equal(got, certified.CertifyInfo.Bytes()) {
		t.Errorf("certification\n%x, of swtpm\n%x", got, certified.CertifyInfo.Bytes())
	}
}

// A key of the software TPM is of the shape that a real TPM gives our template.
func TestKeyOfSWTPM(t *testing.T) {
	tpm := tpmsim.Start(t)
	created, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(attest.KeyTemplate()),
	}.Execute(tpm)
	check(t, err)
	defer flush(t, tpm, created.ObjectHandle)
	area, err := created.OutPublic.Contents()
	check(t, err)
	public, err := tpm2.Pub(*area)
	check(t, err)
	spki, err := x509.MarshalPKIXPublicKey(public)
	check(t, err)
	name, err := attest.KeyName(spki)
	check(t, err)
	if !bytes.Equal(name, created.Name.Buffer) {
		t.Errorf("Name %x, of swtpm %x", name, created.Name.Buffer)
	}
	key, err := attacker.NewKey(nil)
	check(t, err)
	if name, err := attest.KeyName(key.SPKI); err != nil || !bytes.Equal(name, key.Name) {
		t.Errorf("Name %x of a key whose SPKI says %x (%v)", key.Name, name, err)
	}
}

// What a real TPM wraps by TPM2_MakeCredential the software one unwraps, with
// every kind of EK.
func TestActivateWhatSWTPMWraps(t *testing.T) {
	tpm := tpmsim.Start(t)
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			software := newTPM(t, nil, kind)
			ek, err := attest.EKPublic(software.EK.Public())
			check(t, err)
			if key, ok := software.EK.(*rsa.PrivateKey); ok && key.E != 65537 {
				t.Fatalf("exponent %d", key.E)
			}
			loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(*ek), Hierarchy: tpm2.TPMRHNull}.Execute(tpm)
			check(t, err)
			defer flush(t, tpm, loaded.ObjectHandle)
			secret := sum([]byte(kind))
			wrapped, err := tpm2.MakeCredential{
				Handle: loaded.ObjectHandle, Credential: tpm2.TPM2BDigest{Buffer: secret},
				ObjectName: tpm2.TPM2BName{Buffer: software.AK.Name()},
			}.Execute(tpm)
			check(t, err)
			got, err := software.Activate(&attest.Credential{Blob: wrapped.CredentialBlob.Buffer, Secret: wrapped.Secret.Buffer})
			check(t, err)
			if !bytes.Equal(got, secret) {
				t.Errorf("unwrapped %x, want %x", got, secret)
			}
		})
	}
}
