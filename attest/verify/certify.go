// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/subtle"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// checkCertify judges the keys that the host says are in its TPM: each one has a
// TPM2_Certify by this AK, over this challenge, of the Name that a key of our
// template with that point has. Every mistake is refused with rule key.
func checkCertify(m *attest.LoginRequest, c Challenge) error {
	for i, certification := range m.Certify {
		if certification == nil {
			continue
		}
		name, err := attest.KeyName(m.Keys[i])
		if err != nil {
			return err
		}
		if checkSignature(certification.Info, certification.Signature, c.AK) != nil {
			return attest.Refuse(attest.RuleKey, "certification of key %d is not signed by the AK", i+1)
		}
		said, ok := parseCertify(certification.Info)
		want := attest.CertifyBinding(binding(m, c), m.Keys[i])
		switch {
		case !ok:
			return attest.Refuse(attest.RuleKey, "certification of key %d is not exactly one made by a TPM", i+1)
		case !bytes.Equal(said.signer, c.AK.QualifiedName()):
			return attest.Refuse(attest.RuleKey, "certification of key %d by an AK of another hierarchy", i+1)
		case subtle.ConstantTimeCompare(want[:], said.extraData) != 1:
			return attest.Refuse(attest.RuleKey, "certification of key %d is not over this challenge", i+1)
		case !bytes.Equal(said.name, name):
			return attest.Refuse(attest.RuleKey, "key %d is in the TPM with other attributes, or not at all", i+1)
		}
	}
	return nil
}

// certifyInfo is what a TPM says in a TPMS_ATTEST of type TPM_ST_ATTEST_CERTIFY.
type certifyInfo struct {
	signer, extraData, name []byte
}

// parseCertify reads a TPMS_ATTEST that holds a TPMS_CERTIFY_INFO (TPM 2.0 Part 2,
// 10.12.12 and 10.12.3).
func parseCertify(raw []byte) (*certifyInfo, bool) {
	p := parser{rest: raw}
	generated := p.uint32() == uint32(tpm2.TPMGeneratedValue)
	certify := p.uint16() == uint16(tpm2.TPMSTAttestCertify)
	c := &certifyInfo{signer: p.sized(2 + 64), extraData: p.sized(2 + 64)}
	p.take(8 + 4 + 4) // clock, resetCount, restartCount
	p.yesNo()
	p.take(8) // firmwareVersion
	c.name = p.sized(2 + 64)
	p.sized(2 + 64) // qualifiedName: where the key's parent is does not matter
	return c, p.done() && generated && certify
}

// ResidentKeys reports which keys of an accepted login are proven to be in the
// TPM.
func ResidentKeys(m *attest.LoginRequest) []bool {
	resident := make([]bool, len(m.Keys))
	for i, c := range m.Certify {
		resident[i] = c != nil
	}
	return resident
}
