// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrPCRMoved says that PCRs kept changing while they were read.
var ErrPCRMoved = errors.New("PCRs changed while they were read")

// ReadPCRs reads the given PCRs (0 to 23) of one bank and returns their values
// by index. A TPM answers at most eight at a time and may answer fewer than it
// was asked for; the values returned are all of one moment, by the TPM's count
// of PCR updates.
func (t *TPM) ReadPCRs(ctx context.Context, bank tpm2.TPMAlgID, pcrs []int) (map[int][]byte, error) {
	for range 5 {
		values, err := t.readPCRs(ctx, bank, pcrs)
		if !errors.Is(err, ErrPCRMoved) {
			return values, err
		}
	}
	return nil, ErrPCRMoved
}

func (t *TPM) readPCRs(ctx context.Context, bank tpm2.TPMAlgID, pcrs []int) (map[int][]byte, error) {
	values := make(map[int][]byte, len(pcrs))
	var count uint32
	for wanted := missing(pcrs, values); len(wanted) != 0; wanted = missing(pcrs, values) {
		response, err := tpm2.PCRRead{PCRSelectionIn: selection(bank, wanted)}.Execute(t.in(ctx))
		if err != nil {
			return nil, fmt.Errorf("read PCRs: %w", err)
		}
		if len(values) != 0 && response.PCRUpdateCounter != count {
			return nil, ErrPCRMoved
		}
		count = response.PCRUpdateCounter
		if err := collect(values, bank, response); err != nil {
			return nil, fmt.Errorf("read PCRs: %w", err)
		}
	}
	return values, nil
}

func missing(pcrs []int, values map[int][]byte) []uint {
	var wanted []uint
	for _, pcr := range pcrs {
		if values[pcr] == nil {
			wanted = append(wanted, uint(pcr))
		}
	}
	return wanted
}

func selection(bank tpm2.TPMAlgID, pcrs []uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
	}}}
}

// collect adds the values of one answer. An answer without any would have no
// end.
func collect(values map[int][]byte, bank tpm2.TPMAlgID, response *tpm2.PCRReadResponse) error {
	hash, err := bank.Hash()
	if err != nil {
		return err
	}
	digests := response.PCRValues.Digests
	if len(digests) == 0 {
		return fmt.Errorf("the TPM has no such bank (TPM_ALG_ID 0x%04x) or PCR", uint16(bank))
	}
	for _, answered := range response.PCRSelectionOut.PCRSelections {
		for _, pcr := range indexes(answered.PCRSelect) {
			if len(digests) == 0 || answered.Hash != bank || len(digests[0].Buffer) != hash.Size() {
				return errors.New("an answer that does not fit its selection")
			}
			values[pcr] = digests[0].Buffer
			digests = digests[1:]
		}
	}
	if len(digests) != 0 {
		return errors.New("an answer that does not fit its selection")
	}
	return nil
}

func indexes(bitmap []byte) []int {
	var pcrs []int
	for i := range 8 * len(bitmap) {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			pcrs = append(pcrs, i)
		}
	}
	return pcrs
}
