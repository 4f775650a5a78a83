// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	_ "crypto/sha1" //nolint:gosec // old banks are what some attacks are about
	"crypto/sha256"
	"fmt"

	goattest "github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// banks are the PCR banks of every TPM here.
var banks = [...]tpm2.TPMAlgID{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384}

// PCR is the value of one PCR. Before anything is measured it is zero, or all
// ones for those of the dynamic root of trust, 17 to 22 (PC Client Platform TPM
// Profile, 4.6.2).
func (t *TPM) PCR(bank tpm2.TPMAlgID, pcr int) []byte {
	if value, ok := t.pcrs[place{bank, pcr}]; ok {
		return value
	}
	h, err := bank.Hash()
	if err != nil {
		return nil
	}
	if pcr >= 17 && pcr <= 22 {
		return bytes.Repeat([]byte{0xff}, h.Size())
	}
	return make([]byte, h.Size())
}

// SetPCR gives one PCR any value.
func (t *TPM) SetPCR(bank tpm2.TPMAlgID, pcr int, value []byte) {
	if t.pcrs == nil {
		t.pcrs = map[place][]byte{}
	}
	t.pcrs[place{bank, pcr}] = bytes.Clone(value)
}

// Extend is TPM2_PCR_Extend of one bank (TPM 2.0 Part 3, 22.2).
func (t *TPM) Extend(bank tpm2.TPMAlgID, pcr int, digest []byte) error {
	h, err := bank.Hash()
	if err != nil {
		return err
	}
	w := h.New()
	w.Write(t.PCR(bank, pcr))
	w.Write(digest)
	t.SetPCR(bank, pcr, w.Sum(nil))
	return nil
}

// Boot measures all that a recorded event log says and gives that log from then
// on.
func (t *TPM) Boot(log []byte) error {
	parsed, err := goattest.ParseEventLog(log)
	if err != nil {
		return fmt.Errorf("parse event log: %w", err)
	}
	t.pcrs, t.Events, t.RawLog = nil, nil, log
	for _, algorithm := range parsed.Algs {
		for _, e := range parsed.Events(algorithm) {
			if err := t.measureAgain(tpm2.TPMAlgID(algorithm), e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *TPM) measureAgain(bank tpm2.TPMAlgID, e goattest.Event) error {
	if e.Type != goattest.EventType(EventNoAction) {
		return t.Extend(bank, e.Index, e.Digest)
	}
	if locality, ok := startupLocality(e); ok {
		h, err := bank.Hash()
		if err != nil {
			return err
		}
		t.SetPCR(bank, 0, append(make([]byte, h.Size()-1), locality))
	}
	return nil
}

// startupLocality reads the event that says how PCR 0 began (PC Client Platform Firmware Profile, 10.4.5.3).
func startupLocality(e goattest.Event) (byte, bool) {
	locality, found := bytes.CutPrefix(e.Data, []byte("StartupLocality\x00"))
	if e.Index != 0 || !found || len(locality) != 1 {
		return 0, false
	}
	return locality[0], true
}

// values are the selected PCRs in the selection's order.
func (t *TPM) values(s attest.Selection) [][]byte {
	list := make([][]byte, len(s.PCRs))
	for i, pcr := range s.PCRs {
		list[i] = t.PCR(s.Algorithm(), pcr)
	}
	return list
}

// Digest is the pcrDigest of a quote by our AK: SHA-256 over the selected PCRs.
func (t *TPM) Digest(s attest.Selection) [sha256.Size]byte {
	return sha256.Sum256(bytes.Join(t.values(s), nil))
}

// sum hashes data for one of the banks above.
func sum(bank tpm2.TPMAlgID, data []byte) ([]byte, error) {
	h, err := bank.Hash()
	if err != nil {
		return nil, err
	}
	w := h.New()
	w.Write(data)
	return w.Sum(nil), nil
}
