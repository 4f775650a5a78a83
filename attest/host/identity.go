// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"fmt"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
)

// Identity is what an operator needs to enrol this host, as the TPM says it
// now. Nothing of it is proven: a login proves it.
type Identity struct {
	TPMID         attest.TPMID
	EK            string   // rsa2048, p256 or p384
	EKPublic      []byte   // DER SubjectPublicKeyInfo
	EKCertificate []byte   // DER; nil where no certificate vouches for the key
	Intermediates [][]byte // DER, as the configuration brings them
	AKPublic      []byte   // TPMT_PUBLIC
	AKName        []byte   // TPM 2.0 part 1, section 16
	AKPersistent  bool     // false: made anew for every login

	Manufacturer, Vendor, Firmware string
	ResetCount, RestartCount       uint32

	Selection attest.Selection
	PCRs      [][]byte // values in the order of Selection.PCRs
	PCRDigest []byte   // what a quote over Selection says: SHA-256 over the values
}

// Identity asks the TPM itself, whatever is on record, and changes nothing. It
// makes sure that the endorsement key in the TPM is the one of its certificate.
func (p *Prover) Identity(ctx context.Context, selection attest.Selection) (*Identity, error) {
	if err := selection.Check(); err != nil {
		return nil, fmt.Errorf("check PCR selection: %w", err)
	}
	identity := &Identity{Selection: selection}
	for _, read := range []func(context.Context, *Identity) error{p.readEK, p.readAK, p.readProperties, p.readPCRs} {
		if err := read(ctx, identity); err != nil {
			return nil, err
		}
	}
	return identity, nil
}

func (p *Prover) readEK(ctx context.Context, identity *Identity) error {
	ek, err := p.endorsementKey(ctx)
	if err != nil {
		return err
	}
	identity.TPMID, identity.EK, identity.EKPublic = ek.id, ek.class.name, ek.spki
	identity.EKCertificate, identity.Intermediates = ek.certificate, p.config.EKIntermediates
	if err := p.tpm.WithPrimary(ctx, ek.primary(), func(tpm.Key) error { return nil }); err != nil {
		return fmt.Errorf("find endorsement key: %w", err)
	}
	return nil
}

func (p *Prover) readAK(ctx context.Context, identity *Identity) error {
	err := p.tpm.WithPrimary(ctx, akPrimary(), func(key tpm.Key) error {
		ak, err := attest.ParseAK(key.Public())
		if err != nil {
			return err
		}
		identity.AKPublic, identity.AKName, identity.AKPersistent = ak.Public(), ak.Name(), key.Persistent()
		return nil
	})
	if err != nil {
		return fmt.Errorf("find attestation key: %w", err)
	}
	return nil
}

func (p *Prover) readProperties(ctx context.Context, identity *Identity) error {
	properties, err := p.tpm.Properties(ctx)
	if err != nil {
		return err
	}
	identity.Manufacturer, identity.Vendor = properties.Manufacturer, properties.Vendor
	identity.Firmware = properties.Firmware
	identity.ResetCount, identity.RestartCount = properties.ResetCount, properties.RestartCount
	return nil
}

func (p *Prover) readPCRs(ctx context.Context, identity *Identity) (err error) {
	identity.PCRs, identity.PCRDigest, err = p.measure(ctx, identity.Selection)
	return err
}
