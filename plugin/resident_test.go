// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
)

// A role that wants keys in the TPM takes no login whose keys are only claimed, and
// none that shows no key at all: its token would sign any.
func TestRequireResident(t *testing.T) {
	f := newTransactionalFleet(t)
	tpm := f.tpm()
	f.enrol("spire", tpm)
	key, err := attacker.NewKey(nil)
	check(t, err)
	claimed, proven, both := to(byAllowList), to(byAllowList), to(byAllowList)
	claimed.Keys = [][]byte{key.SPKI}
	proven.Resident = []*attacker.Key{key}
	other, err := attacker.NewKey(nil)
	check(t, err)
	both.Keys, both.Resident = [][]byte{other.SPKI}, []*attacker.Key{key}

	f.gets(tpm, to(byAllowList))
	f.gets(tpm, claimed)
	f.write("role/"+string(byAllowList), map[string]any{"require_resident": true})
	f.gets(tpm, proven)
	for _, l := range []attacker.Login{to(byAllowList), claimed, both} {
		f.fails(tpm, l, attest.RuleKey)
	}
}
