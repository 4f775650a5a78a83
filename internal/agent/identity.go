// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/config"
)

// Identity is what an operator needs to enrol this host. It is what the TPM says
// of itself; only a login proves it.
type Identity struct {
	TPMID         attest.TPMID      `json:"tpm_id"`
	EK            string            `json:"ek"`
	Certified     bool              `json:"certified"`
	EKPublic      []byte            `json:"ek_public"`                // DER SubjectPublicKeyInfo
	EKCertificate []byte            `json:"ek_certificate,omitempty"` // DER
	AKName        string            `json:"ak_name"`                  // hexadecimal
	AKPersistent  bool              `json:"ak_persistent"`
	Manufacturer  string            `json:"manufacturer"`
	Vendor        string            `json:"vendor"`
	Firmware      string            `json:"firmware"`
	ResetCount    uint32            `json:"reset_count"`
	RestartCount  uint32            `json:"restart_count"`
	PCRSelection  attest.Selection  `json:"pcr_selection"`
	PCRs          map[string]string `json:"pcrs"` // index to hexadecimal
	PCRDigest     string            `json:"pcr_digest"`
}

// Identify asks the TPM who it is and in which state the machine booted, over
// the given PCRs. It needs no server and no enrolment, and changes nothing.
func Identify(ctx context.Context, c *config.TPM, pcrs attest.Selection) (identity *Identity, err error) {
	if err = pcrs.Check(); err != nil {
		return nil, &config.Error{File: "--pcrs", Err: err, Hint: "PCRs are numbers from 0 to 23, ascending"}
	}
	h, err := hostConfig(*c)
	if err != nil {
		return nil, err
	}
	prover, err := host.Open(ctx, h)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	found, err := prover.Identity(ctx, pcrs)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	return describe(found), nil
}

func describe(i *host.Identity) *Identity {
	d := &Identity{
		TPMID: i.TPMID, EK: i.EK, Certified: i.EKCertificate != nil, EKPublic: i.EKPublic, EKCertificate: i.EKCertificate,
		AKName: hex.EncodeToString(i.AKName), AKPersistent: i.AKPersistent,
		Manufacturer: i.Manufacturer, Vendor: i.Vendor, Firmware: i.Firmware,
		ResetCount: i.ResetCount, RestartCount: i.RestartCount,
		PCRSelection: i.Selection, PCRs: map[string]string{}, PCRDigest: hex.EncodeToString(i.PCRDigest),
	}
	for n, pcr := range i.Selection.PCRs {
		d.PCRs[strconv.Itoa(pcr)] = hex.EncodeToString(i.PCRs[n])
	}
	return d
}
