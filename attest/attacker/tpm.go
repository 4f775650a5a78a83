// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"maps"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// TPM is a TPM in software, with the machine around it: what it measured, and the
// log its firmware gives. Everything can be set; one goroutine at a time.
type TPM struct {
	EK            crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
	EKCertificate []byte        // DER; nil: nobody certified the key
	Intermediates [][]byte      // DER, the EK's issuer first
	AK            *AK
	Counters      Counters
	// Events are what the firmware logs. Nil, with RawLog nil: it gives no log.
	Events []Event
	// RawLog is given in place of a log of Events.
	RawLog []byte

	pcrs map[place][]byte
}

// Counters are the numbers of TPMS_CLOCK_INFO (TPM 2.0 Part 2, 10.11.1) and the
// firmware's version.
type Counters struct {
	Clock    uint64 // milliseconds
	Reset    uint32
	Restart  uint32
	Unsafe   bool // a clock that may have been given before
	Firmware uint64
}

// NewTPM makes a TPM that v certifies, or that nobody does if v is nil. It was
// reset three times, measured nothing and has no event log.
func NewTPM(v *Vendor, kind KeyKind) (*TPM, error) {
	ek, err := kind.Generate()
	if err != nil {
		return nil, err
	}
	return NewTPMWithEK(v, ek)
}

// NewTPMWithEK is [NewTPM] with an endorsement key that there is already.
func NewTPMWithEK(v *Vendor, ek crypto.Signer) (*TPM, error) {
	ak, err := NewAK()
	if err != nil {
		return nil, err
	}
	t := &TPM{EK: ek, AK: ak, Counters: Counters{Clock: 1000, Reset: 3, Firmware: 0x2019102300163636}}
	if v == nil {
		return t, nil
	}
	t.Intermediates = v.Chain()
	t.EKCertificate, err = v.Certify(ek.Public())
	return t, err
}

// Bare is the same TPM without its certificate.
func (t *TPM) Bare() *TPM {
	b := t.Clone()
	b.EKCertificate, b.Intermediates = nil, nil
	return b
}

// ID is the TPM ID.
func (t *TPM) ID() (attest.TPMID, error) { return attest.NewTPMID(t.EK.Public()) }

// EKPublic is the DER SubjectPublicKeyInfo of the endorsement key.
func (t *TPM) EKPublic() ([]byte, error) { return x509.MarshalPKIXPublicKey(t.EK.Public()) }

// Clone is a second TPM with the same keys, as a copied virtual machine has it.
func (t *TPM) Clone() *TPM {
	c := *t
	ak := *t.AK
	c.AK = &ak
	c.EKCertificate, c.RawLog = bytes.Clone(t.EKCertificate), bytes.Clone(t.RawLog)
	c.Intermediates, c.Events = slices.Clone(t.Intermediates), slices.Clone(t.Events)
	c.pcrs = maps.Clone(t.pcrs) // values are replaced, never written to
	return &c
}

// NewAK gives the TPM another attestation key of our template, as no TPM does by
// itself.
func (t *TPM) NewAK() error {
	ak, err := NewAK()
	t.AK = ak
	return err
}

// Reset cuts the power and boots the same software again: TPM Reset (TPM 2.0
// Part 1, 12.2.3.2). The clock goes on.
func (t *TPM) Reset() {
	t.Counters.Reset++
	t.Counters.Restart = 0
	t.Counters.Clock++
}

// Restart suspends the machine and lets it go on: TPM Restart.
func (t *TPM) Restart() {
	t.Counters.Restart++
	t.Counters.Clock++
}

// Clear is TPM2_Clear (TPM 2.0 Part 3, 24.6): counters and clock begin anew, the
// endorsement hierarchy and with it our AK stay.
func (t *TPM) Clear() { t.Counters.Clock, t.Counters.Reset, t.Counters.Restart = 0, 0, 0 }

// place is one PCR of one bank.
type place struct {
	bank tpm2.TPMAlgID
	pcr  int
}
