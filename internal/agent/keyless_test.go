// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/issuer"
)

// sealedHost is an agent whose tenant's key is sealed to PCR 7 and installed, and the
// file that the key is read from.
func sealedHost(t *testing.T) (a *Agent, k *keeper, plain string) {
	t.Helper()
	a, root := installed(t)
	if err := os.Mkdir(filepath.Join(root, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	k = newKeeper(t)
	a.tpm, a.config.Seal = k.tpm, k.config.Seal
	a.config.Certificates[0].TTL.Duration = time.Hour
	orders, err := a.orders(nil)
	if err != nil {
		t.Fatal(err)
	}
	orders[0].mode = issuer.ModeSealed
	if _, err := k.obtainKeys(t, orders, nil); err != nil {
		t.Fatal(err)
	}
	orders[0].issued = issueOver(t, orders[0].key.SPKI())
	if err := a.deployAll(t.Context(), orders, &Outcome{}, newStopwatch()); err != nil {
		t.Fatal(err)
	}
	return a, k, filepath.Join(root, "run/omen-agent/keylime/gen-000002/tenant.key")
}

// A key that is not where its service reads it is put back without a renewal, be it
// that a reboot took it, that somebody emptied it, or that the TPM was in use before.
func TestKeysThatAreGoneComeBack(t *testing.T) {
	a, k, plain := sealedHost(t)
	before, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	back := func(what string) {
		t.Helper()
		if names := a.spoiled(t.Context()); len(names) > 0 || a.soon {
			t.Errorf("%s: a renewal of %v is due, or nothing was done (%t)", what, names, a.soon)
		}
		if now, err := os.ReadFile(plain); err != nil || !slices.Equal(now, before) {
			t.Errorf("%s: the key is not back: %v", what, err)
		}
	}
	if err := os.RemoveAll(filepath.Dir(filepath.Dir(plain))); err != nil {
		t.Fatal(err)
	}
	back("the folder is gone")
	if err := os.Truncate(plain, 0); err != nil {
		t.Fatal(err)
	}
	back("emptied")
	if err := os.Remove(plain); err != nil {
		t.Fatal(err)
	}
	a.tpm.Device = "unix:" + filepath.Join(t.TempDir(), "tpm")
	if !a.unsealed(t.Context()) || !a.soon || len(a.spoiled(t.Context())) > 0 {
		_, err := a.Unseal(t.Context())
		t.Errorf("a TPM that is not there yet makes a login due (soon %t): %v", a.soon, err)
	}
	a.tpm = k.tpm
	back("the TPM is there now")
}

// A key that is lost is renewed, and no other certificate with it.
func TestLostKeyIsRenewedAlone(t *testing.T) {
	a, k, plain := sealedHost(t)
	if err := k.sim.Extend(7, tpm2.TPMAlgSHA256, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	if len(a.spoiled(t.Context())) > 0 {
		t.Error("a key that is given out already is lost by a new state")
	}
	if err := os.Remove(plain); err != nil {
		t.Fatal(err)
	}
	if found := look(t, a); found.Renew != string(causeSpoiled) || found.Soon || !slices.Equal(a.pending(), []string{"tenant"}) {
		t.Errorf("%+v, to renew: %v", found, a.pending())
	}
}

// What somebody did to one set is no reason to renew the others.
func TestSpoiledSetIsRenewedAlone(t *testing.T) {
	a, root := severalInstalled(t)
	place(t, filepath.Join(root, "var/lib/omen-agent/web/current/ca.crt"), "x")
	if found := look(t, a); !slices.Equal(found.Certificates, []string{"web"}) || !slices.Equal(a.pending(), []string{"web"}) {
		t.Errorf("%+v, to renew: %v", found, a.pending())
	}
}

func TestNotYet(t *testing.T) {
	for cause, want := range map[error]bool{host.ErrBusy: true, host.ErrAbsent: true, host.ErrState: false, host.ErrStorage: false, nil: false} {
		if got := notYet(t.Context(), cause); got != want {
			t.Errorf("%v: %t", cause, got)
		}
	}
}
