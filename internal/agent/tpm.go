// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/config"
)

// hostConfig turns the [tpm] table into what opens the TPM.
func hostConfig(c config.TPM) (host.Config, error) {
	h := host.Config{Device: c.Device, EK: c.EK, EventLog: c.EventLog, Uncertified: c.EKCertificate == config.NoCertificate}
	var err error
	if h.OwnerAuth, err = authValue(c.OwnerAuthFile); err != nil {
		return h, err
	}
	if h.EndorsementAuth, err = authValue(c.EndorsementAuthFile); err != nil {
		return h, err
	}
	if c.EKCertificate != "" && !h.Uncertified {
		if h.EKCertificate, err = readEKCertificate(c.EKCertificate); err != nil {
			return h, &config.Error{File: c.EKCertificate, Err: err, Hint: "ek_certificate is one certificate, DER or PEM, as the TPM's vendor delivers it"}
		}
	}
	if c.EKIntermediates != "" {
		if h.EKIntermediates, err = readIntermediates(c.EKIntermediates); err != nil {
			return h, &config.Error{File: c.EKIntermediates, Err: err,
				Hint: fmt.Sprintf("ek_intermediates is 1 to %d CA certificates as PEM, the issuer of this TPM's first, without the root", attest.MaxIntermediates)}
		}
	}
	if err = h.Check(); err != nil {
		return h, &config.Error{File: "[tpm]", Err: err, Hint: "correct ek, ek_certificate or device"}
	}
	return h, nil
}

// readEKCertificate reads one certificate, DER or PEM, and returns it as DER.
func readEKCertificate(path string) ([]byte, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(text); block != nil {
		all, err := parsePEM(text)
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d certificates", len(all))
		}
		if err != nil {
			return nil, err
		}
		text = all[0]
	}
	return text, checkCertificate(text)
}

// readIntermediates reads a PEM bundle.
func readIntermediates(path string) ([][]byte, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	all, err := parsePEM(text)
	if err == nil && (len(all) == 0 || len(all) > attest.MaxIntermediates) {
		err = fmt.Errorf("%d certificates", len(all))
	}
	return all, err
}

func parsePEM(text []byte) (all [][]byte, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("a PEM block that is not a certificate")
		}
		if err := checkCertificate(block.Bytes); err != nil {
			return nil, err
		}
		all = append(all, block.Bytes)
	}
	return all, nil
}

func checkCertificate(der []byte) error {
	if len(der) > attest.MaxCertificate {
		return fmt.Errorf("a certificate of %d bytes, at most %d", len(der), attest.MaxCertificate)
	}
	var whole asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &whole); err != nil || len(rest) > 0 || whole.Tag != asn1.TagSequence {
		return errors.New("not one certificate")
	}
	return nil
}
