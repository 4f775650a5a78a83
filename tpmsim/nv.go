// SPDX-License-Identifier: Apache-2.0

package tpmsim

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// DefineNV puts content into an NV index, as the device's vendor would, or a
// vandal: what lies there is removed first. attributes say who may read it.
func (t *TPM) DefineNV(index tpm2.TPMHandle, attributes tpm2.TPMANV, content []byte) error {
	if _, err := (tpm2.NVReadPublic{NVIndex: index}).Execute(t); err == nil {
		if err := t.UndefineNV(index); err != nil {
			return err
		}
	}
	attributes.PPWrite, attributes.PlatformCreate, attributes.NoDA = true, true, true
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.TPMRHPlatform,
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(len(content)),
		}),
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("define NV index 0x%08x: %w", uint32(index), err)
	}
	for offset := 0; offset < len(content); offset += 512 {
		if err := t.writeNV(index, offset, content[offset:min(len(content), offset+512)]); err != nil {
			return err
		}
	}
	return nil
}

func (t *TPM) writeNV(index tpm2.TPMHandle, offset int, chunk []byte) error {
	// The Name changes with the first write.
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return fmt.Errorf("write NV index 0x%08x: %w", uint32(index), err)
	}
	_, err = tpm2.NVWrite{
		AuthHandle: tpm2.TPMRHPlatform,
		NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
		Data:       tpm2.TPM2BMaxNVBuffer{Buffer: chunk},
		Offset:     uint16(offset),
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("write NV index 0x%08x: %w", uint32(index), err)
	}
	return nil
}

// UndefineNV removes an NV index that the platform made.
func (t *TPM) UndefineNV(index tpm2.TPMHandle) error {
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return fmt.Errorf("remove NV index 0x%08x: %w", uint32(index), err)
	}
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: tpm2.TPMRHPlatform, NVIndex: tpm2.NamedHandle{Handle: index, Name: public.NVName},
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("remove NV index 0x%08x: %w", uint32(index), err)
	}
	return nil
}

// Clear runs TPM2_Clear, as a new owner of the machine would: persistent
// objects and the owner's secrets are gone, counters start at 0, endorsement
// keys and their certificates stay.
func (t *TPM) Clear() error {
	if _, err := (tpm2.Clear{AuthHandle: tpm2.TPMRHPlatform}).Execute(t); err != nil {
		return fmt.Errorf("clear TPM: %w", err)
	}
	return nil
}
