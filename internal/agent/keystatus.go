// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// KeyStatus says where the key of a certificate is.
type KeyStatus struct {
	Mode       issuer.Mode `json:"mode,omitempty"` // as it is on the disk; "" where there is none
	Configured issuer.Mode `json:"configured"`
	Why        string      `json:"why,omitempty"`           // where auto is configured: why it was decided so
	NotGiven   bool        `json:"not_given_out,omitempty"` // sealed, and its plain form is not there since the boot
	Policy     *KeyPolicy  `json:"policy,omitempty"`        // of a sealed key
	Problem    string      `json:"problem,omitempty"`       // a sealed key that no TPM will open
}

// KeyPolicy says in which states of the machine a sealed key comes back. Without
// PCRs it does in any.
type KeyPolicy struct {
	Bank      string `json:"pcr_bank,omitempty"`
	PCRs      []int  `json:"pcrs,omitempty"`
	Announced int    `json:"announced_states"` // beside the state of its making
}

// describeKey tells of the key what is on the disk, not what is configured.
func describeKey(c *config.Certificate, installed install.Certificate, why string) KeyStatus {
	k := KeyStatus{Configured: issuer.Mode(c.Key), NotGiven: installed.NotGiven}
	switch installed.KeyPlace {
	case install.KeyInTPM:
		k.Mode = issuer.ModeResident
	case install.KeySealed:
		k.Mode = issuer.ModeSealed
		k.Policy, k.Problem = describePolicy(installed.Sealed)
	case install.KeyInFile:
		k.Mode = issuer.ModeFile
	}
	if k.Configured == issuer.ModeAuto && k.Mode != "" {
		k.Why = why
	}
	return k
}

func describePolicy(sealed []byte) (policy *KeyPolicy, problem string) {
	said, err := issuer.SealedPolicy(sealed)
	switch {
	case err != nil:
		return nil, err.Error()
	case len(said.States) == 0:
		return &KeyPolicy{}, ""
	}
	return &KeyPolicy{Bank: bankNames[said.Bank], PCRs: said.PCRs, Announced: len(said.States) - 1}, ""
}

var bankNames = map[tpm2.TPMAlgID]string{tpm2.TPMAlgSHA1: "sha1", tpm2.TPMAlgSHA256: "sha256", tpm2.TPMAlgSHA384: "sha384", tpm2.TPMAlgSHA512: "sha512"}

// Reader is a program of this host that cannot use keys in the TPM, and why.
type Reader struct {
	Service string `json:"service"`
	Why     string `json:"why"`
}

// WithoutTPMKeys lists what reads keys on this host and cannot use one that is in
// the TPM, as far as that is known without asking it.
func (a *Agent) WithoutTPMKeys() []Reader {
	var all []Reader
	seen := map[string]bool{}
	for i := range a.config.Certificates {
		c := &a.config.Certificates[i]
		why := c.NoTPMKey()
		if why == "" || c.Usage() == config.Root || seen[c.Serves()] {
			continue
		}
		seen[c.Serves()] = true
		all = append(all, Reader{Service: c.Serves(), Why: why})
	}
	return all
}
