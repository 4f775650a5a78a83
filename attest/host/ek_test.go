// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// withoutCertificates is a TPM as some vendors deliver it.
func withoutCertificates(t *testing.T) *machine {
	t.Helper()
	sim := tpmsim.Start(t)
	if err := errors.Join(sim.UndefineNV(0x1c00002), sim.UndefineNV(0x1c00016)); err != nil {
		t.Fatal(err)
	}
	return newMachine(t, sim)
}

// request is what the machine says first.
func (m *machine) request(t *testing.T) (request *attest.ChallengeRequest, err error) {
	t.Helper()
	m.with(t, func(prover *host.Prover) {
		if request, err = prover.Request(t.Context(), "keylime"); err == nil {
			key, _ := x509.ParsePKIXPublicKey(request.EKPublic)
			if id, _ := attest.NewTPMID(key); request.EKPublic != nil && prover.TPMID() != id {
				t.Errorf("TPM ID %s, want %s", prover.TPMID(), id)
			}
		}
	})
	return request, err
}

// ekOf has the TPM make its endorsement key by a template.
func ekOf(t *testing.T, sim *tpmsim.TPM, template tpm2.TPMTPublic) crypto.PublicKey {
	t.Helper()
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestUncertified proves TPMs that no certificate vouches for, by the key itself.
func TestUncertified(t *testing.T) {
	for ek, class := range map[string]string{"": "rsa2048", "auto": "rsa2048", "p256": "p256", "p384": "p384"} {
		t.Run(ek, func(t *testing.T) {
			m := withoutCertificates(t)
			m.config.EK, m.config.Uncertified = ek, true
			request, err := m.request(t)
			if err != nil {
				t.Fatal(err)
			}
			key, err := x509.ParsePKIXPublicKey(request.EKPublic)
			if err != nil || request.EKCertificate != nil {
				t.Fatalf("request %+v, %v", request, err)
			}
			m.renew(t, attest.KindActivate)
			m.renew(t, attest.KindKnown)
			if m.commands.Total() != 1 {
				t.Errorf("a renewal sent %v", m.commands.Counts())
			}
			m.with(t, func(prover *host.Prover) {
				identity, err := prover.Identity(t.Context(), attest.Selection{Bank: "sha256", PCRs: []int{0}})
				if err != nil {
					t.Fatal(err)
				}
				id, _ := attest.NewTPMID(key)
				if identity.TPMID != id || identity.EK != class || identity.EKCertificate != nil || !bytes.Equal(identity.EKPublic, request.EKPublic) {
					t.Errorf("identity %+v", identity)
				}
			})
		})
	}
}

// A key without certificate is the same one that a certificate would be for.
func TestUncertifiedIsTheCertifiedKey(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	certified, err := m.request(t)
	if err != nil {
		t.Fatal(err)
	}
	m.config.Uncertified = true
	bare, err := m.request(t)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(certified.EKCertificate)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(certificate.RawSubjectPublicKeyInfo, bare.EKPublic) || bare.EKCertificate != nil {
		t.Error("another key")
	}
	m.config.Uncertified = false
	again, err := m.request(t)
	if err != nil || !bytes.Equal(again.EKCertificate, certified.EKCertificate) || again.EKPublic != nil {
		t.Errorf("back to the certificate: %+v, %v", again, err)
	}
}

// Nothing but the configuration makes a host do without a certificate.
func TestUncertifiedIsNeverTheDefault(t *testing.T) {
	m := withoutCertificates(t)
	m.config.Uncertified = true
	m.renew(t, attest.KindActivate)
	m.config.Uncertified = false
	if _, err := m.request(t); !errors.Is(err, host.ErrNoCertificate) {
		t.Errorf("error is %v", err)
	}
}

// TestPersistentStrangerIsNoEndorsementKey has another program's key where the
// endorsement key would be.
func TestPersistentStrangerIsNoEndorsementKey(t *testing.T) {
	m := withoutCertificates(t)
	m.config.Uncertified, m.config.EK = true, "p256"
	want, err := m.request(t)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(m.sim)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: 0x8101000a}.Execute(m.sim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(m.sim); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.config.StateDir); err != nil {
		t.Fatal(err)
	}
	got, err := m.request(t)
	if err != nil || !bytes.Equal(got.EKPublic, want.EKPublic) {
		t.Errorf("%v", err)
	}
}

// TestCertificateFromFile is for vendors that deliver certificates elsewhere than
// in the TPM, with what stands between them and the root.
func TestCertificateFromFile(t *testing.T) {
	m := withoutCertificates(t)
	ca := tpmsim.TestCA(t)
	issue := func(key crypto.PublicKey, serial int64) []byte {
		der, err := ca.Issue(&x509.Certificate{SerialNumber: big.NewInt(serial)}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	m.config.EKCertificate = issue(ekOf(t, m.sim, tpm2.ECCEKTemplate), 7)
	m.config.EKIntermediates = [][]byte{ca.Issuer().Raw}
	request, err := m.request(t)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(request.EKCertificate, m.config.EKCertificate) || len(request.Intermediates) != 1 ||
		!bytes.Equal(request.Intermediates[0], ca.Issuer().Raw) {
		t.Errorf("request %+v", request)
	}
	m.renew(t, attest.KindActivate)
	m.renew(t, attest.KindKnown)
	if m.commands.Total() != 1 {
		t.Errorf("a renewal sent %v", m.commands.Counts())
	}
	m.config.EKCertificate = issue(ekOf(t, m.sim, tpm2.ECCEKTemplate), 8)
	if request, err = m.request(t); err != nil || !bytes.Equal(request.EKCertificate, m.config.EKCertificate) {
		t.Errorf("a new certificate for the same key: %v", err)
	}
	m.config.EK = "rsa2048"
	if _, err := host.Open(t.Context(), m.config); err == nil || !strings.Contains(err.Error(), "for a p256 key") {
		t.Errorf("of another class than configured: %v", err)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m.config.EK, m.config.EKCertificate = "", issue(stranger.Public(), 9)
	if _, err := m.request(t); !errors.Is(err, host.ErrAnotherKey) {
		t.Errorf("of another TPM: %v", err)
	}
}

// A negative serial number is a vendor's mistake, and for the server to forgive.
func TestNegativeSerialNumber(t *testing.T) {
	m := withoutCertificates(t)
	key := ekOf(t, m.sim, tpm2.RSAEKTemplate)
	der, err := tpmsim.TestCA(t).Issue(&x509.Certificate{SerialNumber: big.NewInt(7)}, key)
	if err != nil {
		t.Fatal(err)
	}
	positive, negative := []byte{0xa0, 3, 2, 1, 2, 2, 1, 7}, []byte{0xa0, 3, 2, 1, 2, 2, 1, 0xf9}
	if der = bytes.Replace(der, positive, negative, 1); !bytes.Contains(der, negative) {
		t.Fatal("no serial number to bend")
	}
	if err := m.sim.DefineNV(0x1c00002, tpm2.TPMANV{OwnerRead: true, AuthRead: true}, der); err != nil {
		t.Fatal(err)
	}
	if request, err := m.request(t); err != nil || !bytes.Equal(request.EKCertificate, der) {
		t.Errorf("%v", err)
	}
}

func TestEKConfigCheck(t *testing.T) {
	der := tpmsim.TestCA(t).Issuer().Raw
	for name, config := range map[string]host.Config{
		"none and a certificate":    {Uncertified: true, EKCertificate: der},
		"none and intermediates":    {Uncertified: true, EKIntermediates: [][]byte{der}},
		"too many intermediates":    {EKIntermediates: make([][]byte, attest.MaxIntermediates+1)},
		"no certificate":            {EKCertificate: []byte("hello")},
		"bytes behind":              {EKCertificate: append(bytes.Clone(der), 0)},
		"not of an endorsement key": {EKCertificate: der}, // RSA-3072, an issuer's
	} {
		if err := config.Check(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A record that says two things about the key says nothing.
func TestRecordOfTwoSources(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.config.Uncertified = true
	m.renew(t, attest.KindKnown)
	path := filepath.Join(m.config.StateDir, host.RecordName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"source": {`"source": "none"`, `"source": "file"`}, "unknown source": {`"source": "none"`, `"source": "cloud"`},
		"no key": {`"ek_public": "MII`, `"ek_public": "AII`}, "certificate too": {`"ek_public"`, `"ek_certificate": "MIIB", "ek_public"`},
	} {
		bent := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(bent, good) {
			t.Fatalf("%s: nothing to bend in %s", name, good)
		}
		if err := os.WriteFile(path, bent, 0o600); err != nil {
			t.Fatal(err)
		}
		m.renew(t, attest.KindKnown)
		if m.commands.Total() == 1 {
			t.Errorf("%s: a bent record was used", name)
		}
	}
}
