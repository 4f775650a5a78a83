// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"slices"
	"testing"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// Counters only grow: what is honest gets in, what is not is refused as clone
// with an alarm, and the host itself goes on.
func TestCounters(t *testing.T) {
	for name, row := range map[string]struct {
		move func(*attacker.TPM)
		want attest.Rule
	}{
		"goes on":                   {func(*attacker.TPM) {}, ""},
		"reset":                     {(*attacker.TPM).Reset, ""},
		"restart":                   {(*attacker.TPM).Restart, ""},
		"restart falls at reset":    {func(tpm *attacker.TPM) { tpm.Counters.Restart = 0; tpm.Counters.Reset++ }, ""},
		"clock falls at a reset":    {func(tpm *attacker.TPM) { tpm.Reset(); tpm.Counters.Clock = 5 }, ""},
		"clock stands":              {func(tpm *attacker.TPM) { tpm.Counters.Clock-- }, ""},
		"clock falls":               {func(tpm *attacker.TPM) { tpm.Counters.Clock -= 2 }, attest.RuleClone},
		"clock falls to zero":       {func(tpm *attacker.TPM) { tpm.Counters.Clock = 0 }, attest.RuleClone},
		"reset falls":               {func(tpm *attacker.TPM) { tpm.Counters.Reset-- }, attest.RuleClone},
		"reset falls, restart grew": {func(tpm *attacker.TPM) { tpm.Counters.Reset--; tpm.Counters.Restart += 9 }, attest.RuleClone},
		"restart falls":             {func(tpm *attacker.TPM) { tpm.Counters.Restart-- }, attest.RuleClone},
		"cleared":                   {(*attacker.TPM).Clear, attest.RuleClone},
	} {
		t.Run(name, func(t *testing.T) {
			eachStorage(t, func(t *testing.T, f *fleet) {
				tpm := f.tpm()
				tpm.Counters.Restart = 4
				f.enrol("spire", tpm)
				f.gets(tpm, to(byAllowList))
				moved := tpm.Clone()
				row.move(moved)
				if row.want == "" {
					f.gets(moved, to(byAllowList))
					h := f.read("host/spire")
					if h["reset_count"] != moved.Counters.Reset || h["restart_count"] != moved.Counters.Restart {
						t.Errorf("host is %v", h)
					}
					return
				}
				f.fails(moved, to(byAllowList), row.want)
				if n := f.alarms(attest.RuleClone); n != 1 {
					t.Errorf("%d alarms", n)
				}
				if state := f.read("host/spire")["state"]; state != "active" {
					t.Errorf("state is %v", state)
				}
				f.gets(tpm, to(byAllowList))
				if n := f.alarms(attest.RuleClone); n != 1 {
					t.Errorf("%d alarms", n)
				}
			})
		})
	}
}

// A TPM that was cleared is refused until an operator accepts it, once.
func TestAcceptReset(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		f.write("host/spire/accept-reset", nil) // nothing happened: nothing is lost
		f.gets(tpm, to(byAllowList))
		tpm.Clear()
		f.fails(tpm, to(byAllowList), attest.RuleClone)
		f.write("host/spire/accept-reset", nil)
		c, data := f.answered(tpm, to(byAllowList))
		if c.Kind != attest.KindKnown {
			t.Errorf("kind %s: the AK is forgotten", c.Kind)
		}
		_, err := f.request(logical.UpdateOperation, loginPath, data)
		check(t, err)
		again := tpm.Clone()
		tpm.Reset()
		f.gets(tpm, to(byAllowList))
		f.fails(again, to(byAllowList), attest.RuleClone)

		f.enrol("auth", f.tpm())
		f.write("host/auth/accept-reset", nil) // never logged in
		sum, _ := f.certificateOf(f.tpm().EKCertificate)
		f.write("host/third", map[string]any{"ek_certificate_sha256": sum})
		f.write("host/third/accept-reset", nil) // has no TPM yet
	})
}

// Two machines that answer for one TPM ID: a copy that is not moved is noticed
// when the other has gone on, and both together sooner or later.
func TestTwoMachinesAlternating(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		one := f.enrolled("spire")
		two := one.Clone()
		refused := 0
		for i := range 6 {
			tpm := []*attacker.TPM{one, two}[i%2]
			tpm.Counters.Clock += uint64(100 * (1 + i%2)) // the second runs ahead
			answer := f.attest(tpm, to(byAllowList))
			if !answer.In() {
				f.wantRule(answer, attest.RuleClone)
				refused++
			}
		}
		if refused == 0 || f.alarms(attest.RuleClone) != refused {
			t.Errorf("%d refused, %d alarms", refused, f.alarms(attest.RuleClone))
		}
	})
}

// Logins that overlap come in any order, and nobody is alarmed.
func TestOverlappingLogins(t *testing.T) {
	eachStorage(t, func(t *testing.T, f *fleet) {
		tpm := f.enrolled("spire")
		var bodies []map[string]any
		for range 6 {
			_, data := f.answered(tpm, to(byAllowList))
			bodies = append(bodies, data)
		}
		slices.Reverse(bodies)
		for _, data := range bodies[:3] {
			_, err := f.request(logical.UpdateOperation, loginPath, data)
			check(t, err)
		}
		if in := f.atOnce(bodies[3:]); in != 3 {
			t.Errorf("%d of 3 got in", in)
		}
		if n := f.alarms(attest.RuleClone); n != 0 {
			t.Errorf("%d alarms", n)
		}
		// The latest reading stays: a copy from before is noticed after.
		old := tpm.Clone()
		old.Counters.Clock -= 3
		f.fails(old, to(byAllowList), attest.RuleClone)
		f.gets(tpm, to(byAllowList))
	})
}
