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
		"key\tx\tnone\tsealed from the next renewal on\n": {Configured: "sealed"},
		"key\tx\tfile\t\n": {Mode: "file", Configured: "file"},
		"key\tx\tfile\tsealed from the next renewal on\n":  {Mode: "file", Configured: "sealed"},
		"key\tx\tfile\tauto: this host cannot do better\n": {Mode: "file", Configured: "auto", Why: "this host cannot do better"},
		"key\tx\ttpm\t\n": {Mode: "tpm", Configured: "auto"},
		"key\tx\tsealed\tPCR 4,7 of sha256, announced states: 1\n":                                        {Mode: "sealed", Configured: "sealed", Policy: &agent.KeyPolicy{Bank: "sha256", PCRs: []int{4, 7}, Announced: 1}},
		"key\tx\tsealed\tin any state of the machine; not given out since the boot (omen-agent unseal)\n": {Mode: "sealed", Configured: "sealed", NotGiven: true, Policy: &agent.KeyPolicy{}},
		"key\tx\tsealed\tnot a sealed key\n":                                                              {Mode: "sealed", Configured: "sealed", Problem: "not a sealed\nkey"},
	} {
		var out strings.Builder
		if keyText(&out, "x", k); out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
	var out strings.Builder
	readersText(&out, []agent.Reader{{Service: "keylime_agent.service", Why: "it is\x1b so"}})
	if got := out.String(); got != "no TPM keys\tkeylime_agent.service\tit is\uFFFD so\n" {
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
