// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"errors"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// A Creation is the TPM's word on how the attestation key was made, by that key
// itself (TPM2_CertifyCreation). Omen does not need it, for it rebuilds the key
// from its own template; go-attestation asks for it.
type Creation struct {
	Data        []byte // TPMS_CREATION_DATA
	Attestation []byte // TPMS_ATTEST
	Signature   []byte // TPMT_SIGNATURE
}

// Creation makes the attestation key again, which gives the same key, and has
// its making certified.
func (m *Machine) Creation() (c *Creation, err error) {
	ak, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHEndorsement,
		InPublic:      tpm2.New2B(attest.AKTemplate()),
	}.Execute(m.tpm)
	if err != nil {
		return nil, err
	}
	defer func() {
		_, flushed := tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(m.tpm)
		err = errors.Join(err, flushed)
	}()
	certified, err := tpm2.CertifyCreation{
		SignHandle:     tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:   tpm2.NamedHandle{Handle: ak.ObjectHandle, Name: ak.Name},
		CreationHash:   ak.CreationHash,
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		CreationTicket: ak.CreationTicket,
	}.Execute(m.tpm)
	if err != nil {
		return nil, err
	}
	return &Creation{
		Data:        ak.CreationData.Bytes(),
		Attestation: certified.CertifyInfo.Bytes(),
		Signature:   tpm2.Marshal(certified.Signature),
	}, nil
}
