// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384

	"github.com/google/go-tpm/tpm2"
)

// MaxPCR is the highest PCR index of a PC Client TPM.
const MaxPCR = 23

// Selection names PCRs of one bank. It is exact: a quote over more, fewer or
// other PCRs is refused.
type Selection struct {
	Bank string `json:"bank"` // "sha256" or "sha384"
	PCRs []int  `json:"pcrs"` // ascending, 0–23
}

// Check refuses an empty, unordered or unknown selection.
func (s Selection) Check() error {
	if _, ok := banks[s.Bank]; !ok {
		return Refuse(RulePCRSelection, "bank is not sha256 or sha384")
	}
	if len(s.PCRs) == 0 || len(s.PCRs) > MaxPCR+1 {
		return Refuse(RulePCRSelection, "%d PCRs", len(s.PCRs))
	}
	last := -1
	for _, p := range s.PCRs {
		if p <= last || p > MaxPCR {
			return Refuse(RulePCRSelection, "PCRs not ascending within 0–%d", MaxPCR)
		}
		last = p
	}
	return nil
}

var banks = map[string]tpm2.TPMAlgID{"sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384}

// Algorithm is the bank's TPM_ALG_ID.
func (s Selection) Algorithm() tpm2.TPMAlgID { return banks[s.Bank] }

// Hash is the bank's hash.
func (s Selection) Hash() crypto.Hash {
	if s.Bank == "sha384" {
		return crypto.SHA384
	}
	return crypto.SHA256
}

// Bitmap is the pcrSelect of a TPMS_PCR_SELECTION (TPM 2.0 Part 2, 10.6.2):
// three octets, PCR 0 being bit 0 of the first.
func (s Selection) Bitmap() [3]byte {
	var b [3]byte
	for _, p := range s.PCRs {
		b[p/8] |= 1 << (p % 8)
	}
	return b
}

// TPM is the selection as a TPM command takes it.
func (s Selection) TPM() tpm2.TPMLPCRSelection {
	b := s.Bitmap()
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: s.Algorithm(), PCRSelect: b[:]},
	}}
}
