// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/attest/verify"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/issuer"
	"funlab.casa/omen/tpmsim"
)

// A renewal is what a host does with one key in its TPM, judged by the server's own
// code.
type renewal struct {
	key *issuer.Key
}

// certifyKey makes a key, logs in with it, and has it sign a request.
func (m *machine) certifyKey(t *testing.T, prover *host.Prover, kind attest.Kind) (renewal, error) {
	t.Helper()
	storage, err := prover.Storage(t.Context())
	if err != nil {
		return renewal{}, err
	}
	key, err := issuer.NewKey(t.Context(), issuer.ModeResident, storage)
	if err != nil {
		return renewal{}, err
	}
	if err := m.proveKeys(t, prover, kind, key); err != nil {
		return renewal{}, err
	}
	request := issuer.Request{Name: "agent", Usage: issuer.ServerAuth, TTL: time.Hour, CommonName: "agent.keylime.funlab.casa", IP: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	if _, err := key.CSR(request); err != nil {
		return renewal{}, err
	}
	return renewal{key: key}, prover.Accepted()
}

// proveKeys logs in with keys, of which the server must take those that are in the
// TPM for certified and the others for claimed.
func (m *machine) proveKeys(t *testing.T, prover *host.Prover, kind attest.Kind, keys ...*issuer.Key) error {
	t.Helper()
	claim := host.Claim{Role: "keylime", Audience: audience, Resident: map[string]tpm.Blob{}}
	for _, key := range keys {
		claim.Keys = append(claim.Keys, key.SPKI())
		if blob := key.Resident(); blob != nil {
			claim.Resident[string(key.SPKI())] = *blob
		}
	}
	request, err := prover.Request(t.Context(), claim.Role)
	if err != nil {
		return err
	}
	s := newServer(kind)
	login, err := prover.Login(t.Context(), claim, s.challenge(t, request))
	if err != nil {
		return err
	}
	s.judge(t, login, claim)
	return nil
}

// judge is attest/verify, which knows nothing of the client's code.
func (s *server) judge(t *testing.T, login *attest.LoginRequest, claim host.Claim) {
	t.Helper()
	ak, err := attest.ParseAK(s.request.AKPublic)
	if err != nil {
		t.Fatal(err)
	}
	challenge := verify.Challenge{Kind: s.kind, AK: ak, Secret: s.secret, Selection: s.selection}
	if _, err := verify.Login(login, challenge, []string{audience}); err != nil {
		t.Errorf("attest/verify refuses the login: %v", err)
	}
	for i, resident := range verify.ResidentKeys(login) {
		if _, want := claim.Resident[string(login.Keys[i])]; resident != want {
			t.Errorf("key %d: proven to be in the TPM: %v, want %v", i, resident, want)
		}
	}
}

// renewKey is one renewal of a host that has one key in its TPM.
func (m *machine) renewKey(t *testing.T, kind attest.Kind) renewal {
	t.Helper()
	var done renewal
	m.with(t, func(prover *host.Prover) {
		var err error
		if done, err = m.certifyKey(t, prover, kind); err != nil {
			t.Fatal(err)
		}
	})
	return done
}

func persistRoot(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm.RootTemplate()); err != nil {
		t.Fatal(err)
	}
}

// withoutRoot leaves a machine as swtpm made it: no storage root in it.
func withoutRoot(*testing.T, *tpmsim.TPM) {}

// TestRenewalWithKeyIsFiveCommands is the promise to slow TPMs: storage root and
// attestation key persistent and on record.
func TestRenewalWithKeyIsFiveCommands(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	persistRoot(t, m.sim)
	m.renewKey(t, attest.KindActivate)
	want := map[string]int{"CreateLoaded": 1, "Certify": 1, "Quote": 1, "Sign": 1, "FlushContext": 1}
	for range 2 {
		m.renewKey(t, attest.KindKnown)
		if diff := cmp.Diff(want, m.commands.Counts()); diff != "" {
			t.Errorf("a renewal cost other commands than it should (-want +got):\n%s", diff)
		}
	}
}

// The first login works with a key in the TPM, also where nothing is persistent and
// all must find room at once: attestation key, endorsement key and the new one.
func TestFirstLoginWithKey(t *testing.T) {
	for _, ek := range []string{"rsa2048", "p256", "p384"} {
		t.Run(ek, func(t *testing.T) {
			m := newMachine(t, tpmsim.Start(t))
			m.config.EK = ek
			giveP256(t, m.sim)
			for _, handle := range []tpm2.TPMHandle{0x81010001, 0x81010016} {
				if err := m.sim.Evict(handle); err != nil {
					t.Fatal(err)
				}
			}
			occupy(t, m.sim)
			for range 2 {
				done := m.renewKey(t, attest.KindActivate)
				if done.key.Resident() == nil {
					t.Error("the key is not in the TPM")
				}
			}
			if m.commands.Counts()["EvictControl"] != 0 || m.commands.Counts()["CreatePrimary"] < 3 {
				t.Errorf("sent %v", m.commands.Counts())
			}
		})
	}
}

// Keys in the TPM are proven, others are claimed, in one login.
func TestKeysOfSeveralModes(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.with(t, func(prover *host.Prover) {
		storage, err := prover.Storage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var keys []*issuer.Key
		for _, mode := range []issuer.Mode{issuer.ModeResident, issuer.ModeSealed, issuer.ModeFile, issuer.ModeResident} {
			key, err := issuer.NewKey(t.Context(), mode, storage)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
		if err := m.proveKeys(t, prover, attest.KindActivate, keys...); err != nil {
			t.Error(err)
		}
	})
}

// seal seals a secret under the storage root and, when the server has let the host in,
// puts that on record.
func (m *machine) seal(t *testing.T) (blob tpm.Blob) {
	t.Helper()
	m.with(t, func(prover *host.Prover) {
		if _, err := m.certifyKey(t, prover, attest.KindKnown); err != nil {
			t.Fatal(err)
		}
		storage, err := prover.Storage(t.Context())
		if err == nil {
			blob, err = storage.Seal(t.Context(), []byte("secret"), tpm.SealPolicy{})
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return blob
}

// unseal opens it as a host does at boot.
func (m *machine) unseal(t *testing.T, blob tpm.Blob) (err error) {
	t.Helper()
	m.with(t, func(prover *host.Prover) {
		var storage *tpm.Storage
		if storage, err = prover.RecordedStorage(t.Context()); err != nil {
			return
		}
		var secret []byte
		if secret, err = storage.Unseal(t.Context(), blob, tpm.SealPolicy{}); err == nil && string(secret) != "secret" {
			t.Errorf("unsealed %q", secret)
		}
	})
	return err
}

// What a TPM costs that has its storage root on record, of either kind.
func TestCostOfUnsealing(t *testing.T) {
	for name, row := range map[string]struct {
		prepare func(*testing.T, *tpmsim.TPM)
		want    map[string]int
	}{
		"persistent root":        {persistRoot, map[string]int{"Load": 1, "StartAuthSession": 1, "Unseal": 1, "FlushContext": 1}},
		"root made for each use": {withoutRoot, map[string]int{"CreatePrimary": 1, "Load": 1, "StartAuthSession": 1, "Unseal": 1, "FlushContext": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, tpmsim.Start(t))
			row.prepare(t, m.sim)
			blob := m.seal(t)
			if err := m.unseal(t, blob); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(row.want, m.commands.Counts()); diff != "" {
				t.Errorf("unsealing cost other commands than it should (-want +got):\n%s", diff)
			}
		})
	}
}

// A storage root that is not the one on record opens nothing. A renewal turns to it
// when it is told to, and from then on it is the one.
func TestStorageRootHasChanged(t *testing.T) {
	clear := func(t *testing.T, m *machine) {
		t.Helper()
		if err := m.sim.Clear(); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*testing.T, *machine){
		"cleared": clear,
		"cleared, with a new root": func(t *testing.T, m *machine) {
			t.Helper()
			clear(t, m)
			persistRoot(t, m.sim)
		},
		"cleared, with an RSA key in its place": func(t *testing.T, m *machine) {
			t.Helper()
			clear(t, m)
			if _, err := m.sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.RSASRKTemplate); err != nil {
				t.Fatal(err)
			}
		},
		"another TPM": func(t *testing.T, m *machine) {
			t.Helper()
			m.sim = tpmsim.Device(t, 1)
			m.config.Device = m.sim.Device()
		},
	} {
		for before, prepare := range map[string]func(*testing.T, *tpmsim.TPM){"persistent root": persistRoot, "root made for each use": withoutRoot} {
			t.Run(name+", "+before, func(t *testing.T) {
				m := newMachine(t, tpmsim.Start(t))
				prepare(t, m.sim)
				old := m.seal(t)
				change(t, m)
				if err := m.unseal(t, old); !errors.Is(err, host.ErrStorage) {
					t.Errorf("unseal: %v", err)
				}
				m.with(t, func(prover *host.Prover) { m.turnToNewRoot(t, prover) })
				blob := m.seal(t)
				if err := errors.Join(m.unseal(t, blob)); err != nil {
					t.Error(err)
				}
				if err := m.unseal(t, old); !errors.Is(err, host.ErrStorage) {
					t.Errorf("unseal what was lost: %v", err)
				}
			})
		}
	}
}

// turnToNewRoot is a renewal of a host that finds itself under another root, at
// whichever step it does.
func (m *machine) turnToNewRoot(t *testing.T, prover *host.Prover) {
	t.Helper()
	_, err := m.certifyKey(t, prover, attest.KindActivate)
	if errors.Is(err, host.ErrStorage) {
		if err = prover.DoubtStorage(t.Context()); err == nil {
			_, err = m.certifyKey(t, prover, attest.KindActivate)
		}
	}
	if errors.Is(err, host.ErrStartOver) {
		_, err = m.certifyKey(t, prover, attest.KindActivate)
	}
	if err != nil {
		t.Fatal(err)
	}
}
