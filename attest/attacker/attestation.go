// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// Attestation is a TPMS_ATTEST field by field (TPM 2.0 Part 2, 10.12.12).
type Attestation struct {
	Magic      uint32
	Type       uint16
	Signer     []byte
	ExtraData  []byte
	Clock      uint64
	Reset      uint32
	Restart    uint32
	Safe       byte
	Firmware   uint64
	Selections []PCRs // of a quote
	Digest     []byte // of a quote
	Attested   []byte // in place of the two, what stands there in another type
	Trailing   []byte
}

// PCRs is one TPMS_PCR_SELECTION.
type PCRs struct {
	Bank   uint16
	Bitmap []byte
}

// Bytes is the attestation as a TPM would send it.
func (a Attestation) Bytes() []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint32(nil, a.Magic), a.Type)
	b = sized(sized(b, a.Signer), a.ExtraData)
	b = be.AppendUint32(be.AppendUint32(be.AppendUint64(b, a.Clock), a.Reset), a.Restart)
	b = be.AppendUint64(append(b, a.Safe), a.Firmware)
	if a.Attested != nil {
		return append(append(b, a.Attested...), a.Trailing...)
	}
	b = be.AppendUint32(b, uint32(len(a.Selections)))
	for _, s := range a.Selections {
		b = append(append(be.AppendUint16(b, s.Bank), byte(len(s.Bitmap))), s.Bitmap...)
	}
	return append(sized(b, a.Digest), a.Trailing...)
}

// said is what stands in every attestation by the AK at this moment, and lets
// the clock go on.
func (t *TPM) said(kind tpm2.TPMST, extraData []byte) Attestation {
	t.Counters.Clock++
	a := Attestation{
		Magic: uint32(tpm2.TPMGeneratedValue), Type: uint16(kind),
		Signer: t.AK.QualifiedName(tpm2.TPMRHEndorsement), ExtraData: bytes.Clone(extraData),
		Clock: t.Counters.Clock, Reset: t.Counters.Reset, Restart: t.Counters.Restart,
		Safe: 1, Firmware: t.Counters.Firmware,
	}
	if t.Counters.Unsafe {
		a.Safe = 0
	}
	return a
}

// Quote is what TPM2_Quote signs (TPM 2.0 Part 3, 18.4).
func (t *TPM) Quote(extraData []byte, s attest.Selection) Attestation {
	a := t.said(tpm2.TPMSTAttestQuote, extraData)
	bitmap, digest := s.Bitmap(), t.Digest(s)
	a.Selections = []PCRs{{Bank: uint16(s.Algorithm()), Bitmap: bitmap[:]}}
	a.Digest = digest[:]
	return a
}

// Certify is what TPM2_Certify signs of an object with this Name that is a
// primary of a hierarchy (TPM 2.0 Part 3, 18.2).
func (t *TPM) Certify(extraData, name []byte, hierarchy tpm2.TPMHandle) Attestation {
	a := t.said(tpm2.TPMSTAttestCertify, extraData)
	qualified := nameOf(append(binary.BigEndian.AppendUint32(nil, uint32(hierarchy)), name...))
	a.Attested = sized(sized(nil, name), qualified)
	return a
}

// CertifyCreation is what TPM2_CertifyCreation signs (TPM 2.0 Part 3, 18.3).
func (t *TPM) CertifyCreation(extraData, name, creationHash []byte) Attestation {
	a := t.said(tpm2.TPMSTAttestCreation, extraData)
	a.Attested = sized(sized(nil, name), creationHash)
	return a
}
