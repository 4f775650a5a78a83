// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/issuer"
)

// keyText says where the key of an installed certificate is; nothing of a root, which
// has none.
func keyText(p page, name string, k agent.KeyStatus) {
	if k.Configured == "" {
		return
	}
	mode := k.Mode
	if mode == "" {
		mode = "none"
	}
	p.row("key", fmt.Sprintf("%s %s %s", name, mode, strings.Join(keyWords(k), "; ")))
}

func keyWords(k agent.KeyStatus) (words []string) {
	if k.Policy != nil {
		words = append(words, policyText(k.Policy))
	}
	if k.NotGiven {
		words = append(words, "not given out since the boot (omen-agent unseal)")
	}
	if k.Problem != "" {
		words = append(words, k.Problem)
	}
	switch {
	case k.Why != "":
		words = append(words, "auto: "+k.Why)
	case k.Configured != k.Mode && k.Configured != issuer.ModeAuto:
		words = append(words, fmt.Sprintf("%s from the next renewal on", k.Configured))
	}
	return words
}

func policyText(p *agent.KeyPolicy) string {
	if len(p.PCRs) == 0 {
		return "in any state of the machine"
	}
	return fmt.Sprintf("PCR %s of %s, announced states: %d", pcrList(p.PCRs), p.Bank, p.Announced)
}

// readersText says which programs of this host cannot use keys in the TPM.
func readersText(p page, readers []agent.Reader) {
	for _, r := range readers {
		p.row("no TPM keys", r.Service+" "+r.Why)
	}
}
