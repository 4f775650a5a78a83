// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Condition is what can keep a TPM from serving, beside its keys. Nothing of it is
// proven.
type Condition struct {
	FailedTries uint32        // of dictionary-attack protection, TPM_PT_LOCKOUT_COUNTER
	MaxTries    uint32        // TPM_PT_MAX_AUTH_FAIL
	Recovery    time.Duration // after which one try is forgotten, TPM_PT_LOCKOUT_INTERVAL
	LockedOut   bool

	FreeObjects, FreeSessions, FreePersistent uint32 // as the TPM estimates them

	OwnerAuth, EndorsementAuth bool     // the hierarchy has an authorisation value
	Banks                      []string // PCR banks that are active: "sha1", "sha256"
}

// Of TPMA_PERMANENT (TPM 2.0 part 2, section 8.6).
const (
	ownerAuthSet       = 1 << 0
	endorsementAuthSet = 1 << 1
	inLockout          = 1 << 9
)

// Condition asks the TPM for its variable properties (TPM 2.0 part 2, section 6.13)
// and its PCR banks.
func (t *TPM) Condition(ctx context.Context) (*Condition, error) {
	first, last := tpm2.TPMPTPermanent, tpm2.TPMPTLockoutRecovery
	values, err := t.values(ctx, first, uint32(last-first)+1)
	if err != nil {
		return nil, err
	}
	banks, err := t.banks(ctx)
	if err != nil {
		return nil, err
	}
	permanent := values[tpm2.TPMPTPermanent]
	return &Condition{
		FailedTries: values[tpm2.TPMPTLockoutCounter], MaxTries: values[tpm2.TPMPTMaxAuthFail],
		Recovery:    time.Duration(values[tpm2.TPMPTLockoutInterval]) * time.Second,
		LockedOut:   permanent&inLockout != 0,
		FreeObjects: values[tpm2.TPMPTHRTransientAvail], FreeSessions: values[tpm2.TPMPTHRLoadedAvail],
		FreePersistent: values[tpm2.TPMPTHRPersistentAvail],
		OwnerAuth:      permanent&ownerAuthSet != 0, EndorsementAuth: permanent&endorsementAuthSet != 0,
		Banks: banks,
	}, nil
}

// values reads TPM properties. A TPM may leave out those that it does not have.
func (t *TPM) values(ctx context.Context, first tpm2.TPMPT, count uint32) (map[tpm2.TPMPT]uint32, error) {
	response, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapTPMProperties, Property: uint32(first), PropertyCount: count,
	}.Execute(t.in(ctx))
	if err != nil {
		return nil, fmt.Errorf("read TPM properties: %w", err)
	}
	list, err := response.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, fmt.Errorf("read TPM properties: %w", err)
	}
	values := map[tpm2.TPMPT]uint32{}
	for _, property := range list.TPMProperty {
		values[property.Property] = property.Value
	}
	return values, nil
}

// banks lists the PCR banks that have PCRs.
func (t *TPM) banks(ctx context.Context) ([]string, error) {
	response, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(t.in(ctx))
	if err != nil {
		return nil, fmt.Errorf("read PCR banks: %w", err)
	}
	list, err := response.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("read PCR banks: %w", err)
	}
	var banks []string
	for _, bank := range list.PCRSelections {
		if slices.ContainsFunc(bank.PCRSelect, func(b byte) bool { return b != 0 }) {
			banks = append(banks, bankName(bank.Hash))
		}
	}
	return banks, nil
}

func bankName(alg tpm2.TPMAlgID) string {
	switch alg {
	case tpm2.TPMAlgSHA1:
		return "sha1"
	case tpm2.TPMAlgSHA256:
		return "sha256"
	case tpm2.TPMAlgSHA384:
		return "sha384"
	case tpm2.TPMAlgSHA512:
		return "sha512"
	}
	return fmt.Sprintf("TPM_ALG_ID 0x%04x", uint16(alg))
}

// Public is the TPMT_PUBLIC at a persistent handle; nil where nothing is there.
func (t *TPM) Public(ctx context.Context, handle tpm2.TPMHandle) ([]byte, error) {
	response, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t.in(ctx))
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read persistent handle 0x%08x: %w", uint32(handle), slots(err))
	}
	return response.OutPublic.Bytes(), nil
}
