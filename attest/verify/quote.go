// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// Quote is what a TPM says in a TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE (TPM 2.0
// Part 2, 10.12.12): signed facts, none of them judged yet but for the four that
// [CheckQuote] names.
type Quote struct {
	ExtraData    []byte
	PCRDigest    [sha256.Size]byte // over the selected PCRs, by the hash of the AK's scheme
	Clock        uint64            // milliseconds, advisory
	ResetCount   uint32
	RestartCount uint32
	Safe         bool
	Firmware     uint64 // vendor specific

	selections []pcrSelection
}

// pcrSelection is a TPMS_PCR_SELECTION as it came.
type pcrSelection struct {
	bank   tpm2.TPMAlgID
	bitmap []byte
}

// CheckQuote judges a quote by itself. In this order:
//
//   - ECDSA signature over the raw bytes, by this AK, algorithm and hash from our
//     template and not from the message (signature)
//   - made by a TPM, a quote, nothing missing and nothing trailing (quote-type)
//   - the signer is this AK as a primary of the endorsement hierarchy
//     (ak-hierarchy)
func CheckQuote(raw, signature []byte, ak *attest.AK) (*Quote, error) {
	if len(raw) > attest.MaxQuote || len(signature) > attest.MaxSignature {
		return nil, attest.Refuse(attest.RuleSize, "quote of %d bytes, signature of %d", len(raw), len(signature))
	}
	if err := checkSignature(raw, signature, ak); err != nil {
		return nil, err
	}
	q, signer, ok := parseQuote(raw)
	if !ok {
		return nil, attest.Refuse(attest.RuleQuoteType, "not exactly one quote made by a TPM")
	}
	if !bytes.Equal(signer, ak.QualifiedName()) {
		return nil, attest.Refuse(attest.RuleAKHierarchy, "qualified signer is not the AK in the endorsement hierarchy")
	}
	return q, nil
}

// covers reports whether the quote is over exactly this selection.
func (q *Quote) covers(want attest.Selection) bool {
	bitmap := want.Bitmap()
	return len(q.selections) == 1 &&
		q.selections[0].bank == want.Algorithm() &&
		bytes.Equal(q.selections[0].bitmap, bitmap[:])
}

func checkSignature(raw, signature []byte, ak *attest.AK) error {
	r, s, ok := parseSignature(signature)
	if !ok {
		return attest.Refuse(attest.RuleSignature, "not an ECDSA signature with SHA-256")
	}
	digest := sha256.Sum256(raw)
	if !ecdsa.Verify(ak.Key(), digest[:], r, s) {
		return attest.Refuse(attest.RuleSignature, "not by this AK over this quote")
	}
	return nil
}

// parseSignature reads a TPMT_SIGNATURE of TPM_ALG_ECDSA with SHA-256 (TPM 2.0
// Part 2, 11.3.4).
func parseSignature(b []byte) (r, s *big.Int, ok bool) {
	p := parser{rest: b}
	ecdsaScheme := p.uint16() == uint16(tpm2.TPMAlgECDSA)
	sha256Hash := p.uint16() == uint16(tpm2.TPMAlgSHA256)
	rBytes, sBytes := p.sized(32), p.sized(32)
	ok = p.done() && ecdsaScheme && sha256Hash && len(rBytes) > 0 && len(sBytes) > 0
	return new(big.Int).SetBytes(rBytes), new(big.Int).SetBytes(sBytes), ok
}

// parseQuote reads a TPMS_ATTEST that holds a TPMS_QUOTE_INFO (TPM 2.0 Part 2,
// 10.12.12 and 10.12.4) and the qualified name of its signer.
func parseQuote(raw []byte) (q *Quote, signer []byte, ok bool) {
	p := parser{rest: raw}
	generated := p.uint32() == uint32(tpm2.TPMGeneratedValue)
	quote := p.uint16() == uint16(tpm2.TPMSTAttestQuote)
	signer = p.sized(2 + 64)
	q = &Quote{ExtraData: p.sized(2 + 64), Clock: p.uint64(), ResetCount: p.uint32(), RestartCount: p.uint32()}
	q.Safe = p.yesNo()
	q.Firmware = p.uint64()
	q.selections = p.selections()
	digest := p.sized(sha256.Size)
	copy(q.PCRDigest[:], digest)
	return q, signer, p.done() && generated && quote && len(digest) == sha256.Size
}
