// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// A keeper is an agent with a TPM of its own and a server that lets it in: all that
// keys need.
type keeper struct {
	*prover
	sim    *tpmsim.TPM
	server *server
}

func newKeeper(t *testing.T, script ...string) *keeper {
	t.Helper()
	k := &keeper{sim: tpmsim.Start(t), server: newServer(t, script...)}
	k.prover = newProver(t, k.server)
	k.tpm.Device, k.now, k.state = k.sim.Device(), time.Now, k.tpm.StateDir
	k.config.Seal = config.Seal{Policy: "pcr", Bank: "sha256", PCRs: []int{7}}
	return k
}

// orderKeys is an order for each mode.
func orderKeys(modes ...issuer.Mode) (orders []*order) {
	for _, mode := range modes {
		orders = append(orders, &order{cert: &config.Certificate{Name: "for-" + string(mode)}, mode: mode})
	}
	return orders
}

// obtainKeys is what a renewal does with its keys. between is done when they are
// made.
func (k *keeper) obtainKeys(t *testing.T, orders []*order, between func()) (commands map[string]int, err error) {
	t.Helper()
	w := newStopwatch()
	opened, err := k.openTPM(t.Context(), w.count)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if err := k.makeKeys(t.Context(), opened, orders); err != nil {
		return w.commands, err
	}
	if between != nil {
		between()
	}
	if _, err := k.prove(t.Context(), opened, orders, nil, w); err != nil {
		return w.commands, err
	}
	request := issuer.Request{Name: "agent", CommonName: "agent.keylime.funlab.casa", Usage: issuer.ServerAuth, TTL: time.Hour}
	for _, o := range orders {
		if _, err := o.key.CSR(request); err != nil {
			return w.commands, err
		}
	}
	return w.commands, k.seal(t.Context(), opened, orders)
}

// unsealOne gives a key back as at boot.
func (k *keeper) unsealOne(t *testing.T, o *order) error {
	t.Helper()
	opened, err := host.Open(t.Context(), k.tpm)
	if err != nil {
		t.Fatal(err)
	}
	storage, err := opened.RecordedStorage(t.Context())
	if err == nil {
		_, err = issuer.Unseal(t.Context(), storage, o.sealed, o.key.SPKI())
	}
	return errors.Join(k.explainState(t.Context(), opened, o.sealed, err), opened.Close())
}

func persistRoot(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.ECCSRKTemplate); err != nil {
		t.Fatal(err)
	}
}

// Certificates of all modes in one renewal: those in the TPM are certified, those that
// are sealed come back, and the PCRs that they are sealed to are read once for all.
func TestKeysOfAllModes(t *testing.T) {
	k := newKeeper(t)
	persistRoot(t, k.sim)
	orders := orderKeys(issuer.ModeSealed, issuer.ModeResident, issuer.ModeFile, issuer.ModeSealed, issuer.ModeSealed)
	for range 2 { // the second time with a record
		commands, err := k.obtainKeys(t, orders, nil)
		if err != nil {
			t.Fatal(err)
		}
		if commands["PCR_Read"] != 1 || commands["Create"] != 3 || commands["CreateLoaded"] != 1 {
			t.Errorf("sent %v", commands)
		}
		login := k.server.logins[len(k.server.logins)-1]
		certified := 0
		for i, c := range login.Certify {
			if c != nil {
				certified++
				if !bytes.Equal(login.Keys[i], orders[1].key.SPKI()) {
					t.Error("another key was certified than the one in the TPM")
				}
			}
		}
		if certified != 1 {
			t.Errorf("%d keys certified", certified)
		}
	}
	for _, o := range orders {
		if (len(o.sealed) > 0) != (o.mode == issuer.ModeSealed) {
			t.Errorf("%s: sealed in %d bytes", o.cert.Name, len(o.sealed))
		} else if o.mode == issuer.ModeSealed {
			if err := k.unsealOne(t, o); err != nil {
				t.Error(err)
			}
		}
	}
}

// What a renewal costs the TPM with one key in it, or sealed, and what with none.
func TestCostOfARenewal(t *testing.T) {
	for mode, want := range map[issuer.Mode]int{issuer.ModeResident: 5, issuer.ModeSealed: 4, issuer.ModeFile: 1} {
		k := newKeeper(t)
		persistRoot(t, k.sim)
		for i := range 2 {
			commands, err := k.obtainKeys(t, orderKeys(mode), nil)
			if err != nil {
				t.Fatal(err)
			}
			total := 0
			for _, n := range commands {
				total += n
			}
			if i > 0 && total != want {
				t.Errorf("%s: %d commands, want %d: %v", mode, total, want, commands)
			}
		}
	}
}

// A renewal goes on under the storage root that the TPM has now, with a warning; what
// was sealed under the one before stays closed.
func TestRenewalUnderAnotherRoot(t *testing.T) {
	clear := func(t *testing.T, k *keeper) {
		t.Helper()
		if err := k.sim.Clear(); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*testing.T, *keeper){
		"cleared": clear,
		"another owner's": func(t *testing.T, k *keeper) {
			t.Helper()
			clear(t, k)
			persistRoot(t, k.sim)
		},
		"RSA": func(t *testing.T, k *keeper) {
			t.Helper()
			clear(t, k)
			if _, err := k.sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.RSASRKTemplate); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, modes := range [][]issuer.Mode{{issuer.ModeSealed}, {issuer.ModeResident}, {issuer.ModeResident, issuer.ModeSealed}} {
			t.Run(name, func(t *testing.T) {
				k := newKeeper(t)
				persistRoot(t, k.sim)
				old, fresh := orderKeys(issuer.ModeSealed), orderKeys(modes...)
				if _, err := k.obtainKeys(t, old, nil); err != nil {
					t.Fatal(err)
				}
				change(t, k)
				if err := k.unsealOne(t, old[0]); !errors.Is(err, host.ErrStorage) {
					t.Errorf("unseal: %v", err)
				}
				if _, err := k.obtainKeys(t, fresh, nil); err != nil {
					t.Fatalf("%v: %v", modes, err)
				}
				if !strings.Contains(k.logged.String(), "another storage root than before") {
					t.Errorf("%v: nobody is warned: %s", modes, k.logged.String())
				}
				checkFresh(t, k, fresh)
				if err := k.unsealOne(t, old[0]); !errors.Is(err, host.ErrStorage) {
					t.Errorf("unseal what is lost: %v", err)
				}
			})
		}
	}
}

// checkFresh uses the keys of a renewal from their files, as the host does afterwards.
func checkFresh(t *testing.T, k *keeper, orders []*order) {
	t.Helper()
	for _, o := range orders {
		if o.mode == issuer.ModeSealed {
			if err := k.unsealOne(t, o); err != nil {
				t.Error(err)
			}
			continue
		}
		text, err := o.key.PEM()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.signResident(t.Context(), text.Reveal(), make([]byte, 32)); err != nil {
			t.Error(err)
		}
	}
}

// A TPM that is cleared between the making of the keys and the login.
func TestClearedInARenewal(t *testing.T) {
	k := newKeeper(t)
	persistRoot(t, k.sim)
	if _, err := k.obtainKeys(t, orderKeys(issuer.ModeSealed), nil); err != nil {
		t.Fatal(err)
	}
	device := k.tpm.Device
	clear := false
	k.tpm.Device = k.sim.Interpose(t, func([]byte) []byte {
		if clear {
			clear = false
			if err := k.sim.Clear(); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	orders := orderKeys(issuer.ModeSealed)
	if _, err := k.obtainKeys(t, orders, func() { clear = true }); err != nil {
		t.Fatal(err)
	}
	k.tpm.Device = device
	checkFresh(t, k, orders)
}

// A machine in another state is told which PCR it is.
func TestUnsealInAnotherState(t *testing.T) {
	k := newKeeper(t)
	orders := orderKeys(issuer.ModeSealed)
	if _, err := k.obtainKeys(t, orders, nil); err != nil {
		t.Fatal(err)
	}
	if err := k.sim.Extend(7, tpm2.TPMAlgSHA256, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	if err := k.unsealOne(t, orders[0]); !errors.Is(err, host.ErrState) || !strings.Contains(err.Error(), "PCR [7] moved") {
		t.Errorf("error is %v", err)
	}
}

// An error says whether it was the TPM that failed, or the key, and whose key it was.
func TestStepOfTheTrouble(t *testing.T) {
	full := func(command string) func(*keeper, *testing.T) {
		return func(k *keeper, t *testing.T) {
			t.Helper()
			k.tpm.Device = k.sim.Interpose(t, func(raw []byte) []byte {
				if tpm.CommandName(raw) == command {
					return tpmsim.Refusal(uint32(tpm2.TPMRCObjectMemory))
				}
				return nil
			})
		}
	}
	for name, row := range map[string]struct {
		mode        issuer.Mode
		prepare     func(*keeper, *testing.T)
		step        Step
		certificate string
		cause       error
	}{
		"no slot for a key": {issuer.ModeResident, full("CreateLoaded"), StepTPM, "for-tpm", host.ErrBusy},
		"no slot to seal":   {issuer.ModeSealed, full("Create"), StepTPM, "for-sealed", host.ErrBusy},
		"no slot to quote":  {issuer.ModeFile, full("Quote"), StepTPM, "", host.ErrBusy},
		"owner's password": {issuer.ModeResident, func(k *keeper, t *testing.T) {
			t.Helper()
			if err := k.sim.SetAuth(tpm2.TPMRHOwner, "password"); err != nil {
				t.Fatal(err)
			}
		}, StepTPM, "for-tpm", host.ErrAuth},
		"no such bank": {issuer.ModeSealed, func(k *keeper, t *testing.T) {
			t.Helper()
			k.config.Seal.Bank = "sha384"
		}, StepTPM, "", nil},
		"a mode that is none": {issuer.ModeAuto, func(*keeper, *testing.T) {}, StepKey, "for-auto", nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			row.prepare(k, t)
			_, err := k.obtainKeys(t, orderKeys(row.mode), nil)
			var step *StepError
			if !errors.As(err, &step) || step.Step != row.step || step.Certificate != row.certificate || row.cause != nil && !errors.Is(err, row.cause) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// A host without record cannot know whom to ask for its keys.
func TestUnsealWithoutRecord(t *testing.T) {
	k := newKeeper(t)
	orders := orderKeys(issuer.ModeSealed)
	if _, err := k.obtainKeys(t, orders, nil); err != nil {
		t.Fatal(err)
	}
	k.tpm.StateDir = t.TempDir()
	if err := k.unsealOne(t, orders[0]); !errors.Is(err, host.ErrNoRecord) {
		t.Errorf("error is %v", err)
	}
}

// A renewal whose context ends while keys are made makes none anew.
func TestKeysOfAnEndedContext(t *testing.T) {
	k := newKeeper(t)
	opened, err := k.openTPM(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.makeKeys(ctx, opened, orderKeys(issuer.ModeResident)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
}
