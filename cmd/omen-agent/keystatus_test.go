// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"

	"funlab.casa/omen/internal/agent"
)

func TestKeyText(t *testing.T) {
	for want, k := range map[string]agent.KeyStatus{
		"key           x none sealed from the next renewal on\n":          {Configured: "sealed"},
		"key           x file\n":                                          {Mode: "file", Configured: "file"},
		"key           x file sealed from the next renewal on\n":          {Mode: "file", Configured: "sealed"},
		"key           x file auto: this host cannot do better\n":         {Mode: "file", Configured: "auto", Why: "this host cannot do better"},
		"key           x tpm\n":                                           {Mode: "tpm", Configured: "auto"},
		"key           x sealed PCR 4,7 of sha256, announced states: 1\n": {Mode: "sealed", Configured: "sealed", Policy: &agent.KeyPolicy{Bank: "sha256", PCRs: []int{4, 7}, Announced: 1}},
		"key           x sealed in any state of the machine; not given out since the boot\n              (omen-agent unseal)\n": {Mode: "sealed", Configured: "sealed", NotGiven: true, Policy: &agent.KeyPolicy{}},
		"key           x sealed not a sealed key\n": {Mode: "sealed", Configured: "sealed", Problem: "not a sealed\nkey"},
	} {
		var out strings.Builder
		if keyText(page{w: &out}, "x", k); out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
	var out strings.Builder
	readersText(page{w: &out}, []agent.Reader{{Service: "keylime_agent.service", Why: "it is\x1b so"}})
	if got := out.String(); got != "no TPM keys   keylime_agent.service it is\uFFFD so\n" {
		t.Errorf("%q", got)
	}
}

// A renewal that fails after announce leaves the keys in use as they were; what is
// written down is told as it is.
func TestAnnounceSaysWhatIsKept(t *testing.T) {
	failed := errors.New("no server")
	for _, row := range []struct {
		command announceCommand
		words   string
	}{
		{announceCommand{Values: []string{"7=00"}}, "the announcement is kept"},
		{announceCommand{Clear: true}, "the announcements are taken back"},
	} {
		if err := row.command.notSealed(failed); !errors.Is(err, failed) || !strings.HasPrefix(err.Error(), row.words) {
			t.Errorf("%+v: %v", row.command, err)
		}
	}
}
