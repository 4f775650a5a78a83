// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"
)

// banks are the PCR banks of every device here.
var banks = []struct {
	tpm attest.HashAlg
	alg tpm2.TPMAlgID
}{
	{attest.HashSHA1, tpm2.TPMAlgSHA1},
	{attest.HashSHA256, tpm2.TPMAlgSHA256},
}

// Extend extends one PCR of one bank (TPM_ALG_SHA1 or TPM_ALG_SHA256) with a
// digest of that bank's size.
func (t *TPM) Extend(pcr int, bank tpm2.TPMAlgID, digest []byte) error {
	hash, err := bank.Hash()
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", pcr, err)
	}
	if len(digest) != hash.Size() {
		return fmt.Errorf("extend PCR %d: a digest of %d bytes", pcr, len(digest))
	}
	return t.extend(pcr, []tpm2.TPMTHA{{HashAlg: bank, Digest: digest}})
}

func (t *TPM) extend(pcr int, digests []tpm2.TPMTHA) error {
	if pcr < 0 || pcr > 23 {
		return fmt.Errorf("extend PCR %d: no such PCR", pcr)
	}
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: digests},
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("extend PCR %d: %w", pcr, err)
	}
	return nil
}

// PCR reads one PCR of one bank.
func (t *TPM) PCR(pcr int, bank tpm2.TPMAlgID) ([]byte, error) {
	response, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(uint(pcr)),
	}}}}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("read PCR %d: %w", pcr, err)
	}
	if len(response.PCRValues.Digests) != 1 {
		return nil, fmt.Errorf("read PCR %d: no such bank or PCR", pcr)
	}
	return response.PCRValues.Digests[0].Buffer, nil
}

// evNoAction is EV_NO_ACTION of the TCG PC Client Platform Firmware Profile:
// an event that was logged but not extended.
const evNoAction attest.EventType = 3

// Replay boots the machine again with the firmware's event log log (the bytes
// of binary_bios_measurements, crypto-agile or SHA-1 only): it reboots, from
// the locality the log says, and extends every event into the banks the log
// has. Banks that the log does not have keep their reset values.
func (t *TPM) Replay(log []byte) error {
	parsed, err := attest.ParseEventLog(log)
	if err != nil {
		return fmt.Errorf("replay event log: %w", err)
	}
	byBank := make([][]attest.Event, len(banks))
	for i, bank := range banks {
		byBank[i] = parsed.Events(bank.tpm)
	}
	if err := t.reboot(startupLocality(byBank[0])); err != nil {
		return fmt.Errorf("replay event log: %w", err)
	}
	for i, event := range byBank[0] {
		if event.Type == evNoAction {
			continue
		}
		if err := t.replay(event.Index, i, byBank); err != nil {
			return fmt.Errorf("replay event %d: %w", i, err)
		}
	}
	return nil
}

// replay extends event number i with its digests of all banks, as firmware
// does: in one command.
func (t *TPM) replay(pcr, i int, byBank [][]attest.Event) error {
	var digests []tpm2.TPMTHA
	for j, bank := range banks {
		if digest := byBank[j][i].Digest; len(digest) != 0 {
			digests = append(digests, tpm2.TPMTHA{HashAlg: bank.alg, Digest: digest})
		}
	}
	if len(digests) == 0 {
		return errors.New("no digest of a bank this TPM has")
	}
	return t.extend(pcr, digests)
}

// startupLocality reads the StartupLocality event: an EV_NO_ACTION event for
// PCR 0 with the signature below and one byte (TCG PC Client Platform Firmware
// Profile, section 10.4.5.3).
func startupLocality(events []attest.Event) byte {
	signature := []byte("StartupLocality\x00")
	for _, event := range events {
		if event.Type == evNoAction && len(event.Data) == len(signature)+1 && bytes.HasPrefix(event.Data, signature) {
			return event.Data[len(signature)]
		}
	}
	return 0
}
