// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

// try is renew for a login that fails.
func (m *machine) try(t *testing.T, s *server) error {
	t.Helper()
	var err error
	m.with(t, func(prover *host.Prover) { _, err = login(t.Context(), t, prover, s) })
	return err
}

func TestRebootKeepsTheRecord(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindActivate)
	if err := m.sim.Reboot(); err != nil {
		t.Fatal(err)
	}
	m.renew(t, attest.KindKnown)
	if m.commands.Total() != 1 {
		t.Errorf("the first renewal of a boot sent %v", m.commands.Counts())
	}
}

// TestClearedTPM has its persistent keys evicted; the attestation key is made
// again, is the same, and answers the same challenge.
func TestClearedTPM(t *testing.T) {
	for _, kind := range []attest.Kind{attest.KindKnown, attest.KindActivate} {
		t.Run(string(kind), func(t *testing.T) {
			m := newMachine(t, tpmsim.Start(t))
			m.renew(t, attest.KindActivate)
			if err := m.sim.Clear(); err != nil {
				t.Fatal(err)
			}
			m.renew(t, kind)
			m.renew(t, attest.KindKnown)
			if m.commands.Total() != 1 {
				t.Errorf("the renewal after that sent %v", m.commands.Counts())
			}
		})
	}
}

// TestRecordOfAnotherTPM is a board that was changed under the disk.
func TestRecordOfAnotherTPM(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *machine){
		"new, no attestation key yet": func(*testing.T, *machine) {},
		"with an attestation key of its own": func(t *testing.T, m *machine) {
			t.Helper()
			newMachine(t, m.sim).renew(t, attest.KindKnown)
		},
	} {
		for _, kind := range []attest.Kind{attest.KindKnown, attest.KindActivate} {
			t.Run(name+" "+string(kind), func(t *testing.T) {
				devices := tpmsim.StartN(t, 2)
				m := newMachine(t, devices[0])
				m.renew(t, kind)
				m.sim, m.config.Device = devices[1], devices[1].Device()
				prepare(t, m)
				s := newServer(kind)
				var proof *attest.LoginRequest
				m.with(t, func(prover *host.Prover) {
					if _, err := login(t.Context(), t, prover, s); !errors.Is(err, host.ErrStartOver) {
						t.Fatalf("error is %v", err)
					}
					var err error
					if proof, err = login(t.Context(), t, prover, s); err != nil {
						t.Fatalf("when started over: %v", err)
					}
				})
				s.accept(t, m.sim, proof)
				m.renew(t, attest.KindKnown)
			})
		}
	}
}

func TestBentRecordIsNoRecord(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	path := filepath.Join(m.config.StateDir, host.RecordName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bend := range map[string]func(map[string]any){
		"another version":       func(r map[string]any) { r["version"] = 2 },
		"unknown field":         func(r map[string]any) { r["trusted"] = true },
		"another key class":     func(r map[string]any) { r["ek"] = "p384" },
		"another TPM ID":        func(r map[string]any) { r["tpm_id"] = "sha256-" + strings.Repeat("0", 64) },
		"bent certificate":      func(r map[string]any) { r["ek_certificate"] = "MIIB" },
		"foreign handle":        func(r map[string]any) { r["ak_handle"] = 0x81000001 },
		"transient handle":      func(r map[string]any) { r["ak_handle"] = 0x80000000 },
		"bent key":              func(r map[string]any) { r["ak_public"] = "AAAA" },
		"larger than it may be": func(r map[string]any) { r["tpm_id"] = strings.Repeat("x", 20<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			var fields map[string]any
			if err := json.Unmarshal(good, &fields); err != nil {
				t.Fatal(err)
			}
			bend(fields)
			text, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			writeAndRenew(t, m, path, text, good)
		})
	}
	for name, text := range map[string]string{"empty": "", "no JSON": "\x00\x01", "null": "null"} {
		t.Run(name, func(t *testing.T) { writeAndRenew(t, m, path, []byte(text), good) })
	}
}

// writeAndRenew puts text in place of the record and expects a fresh look and
// the good record again.
func writeAndRenew(t *testing.T, m *machine, path string, text, good []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	m.renew(t, attest.KindKnown)
	if m.commands.Counts()["NV_Read"] == 0 {
		t.Error("a bent record was used")
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, good) {
		t.Errorf("the record was not mended (%v)", err)
	}
}

// occupy puts a key of another program where ours would be.
func occupy(t *testing.T, sim *tpmsim.TPM) tpm2.TPM2BName {
	t.Helper()
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: attest.AKHandle,
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	return key.Name
}

func TestForeignKeyAtOurHandle(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	name := occupy(t, m.sim)
	m.renew(t, attest.KindActivate)
	m.renew(t, attest.KindKnown)
	if counts := m.commands.Counts(); m.commands.Total() != 3 || counts["CreatePrimary"] != 1 {
		t.Errorf("a renewal with a key that cannot be kept sent %v", counts)
	}
	there, err := tpm2.ReadPublic{ObjectHandle: attest.AKHandle}.Execute(m.sim)
	if err != nil || !bytes.Equal(there.Name.Buffer, name.Buffer) {
		t.Errorf("the foreign key is gone (%v)", err)
	}
}

// TestForeignKeyComesLater has another program take the handle after ours was
// on record.
func TestForeignKeyComesLater(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindActivate)
	if err := m.sim.Clear(); err != nil {
		t.Fatal(err)
	}
	occupy(t, m.sim)
	m.renew(t, attest.KindKnown)
}

func TestOwnerHasAnAuthorisation(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	for hierarchy, value := range map[tpm2.TPMHandle]string{tpm2.TPMRHOwner: "owner", tpm2.TPMRHEndorsement: "endorse"} {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(value)}}.Execute(m.sim)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := m.try(t, newServer(attest.KindActivate)); err == nil || !strings.Contains(err.Error(), "authorisation value") {
		t.Errorf("without the endorsement's: %v", err)
	}
	m.config.EndorsementAuth = authValue(t, "endorse")
	m.renew(t, attest.KindActivate)
	m.renew(t, attest.KindKnown)
	if m.commands.Counts()["CreatePrimary"] != 1 {
		t.Errorf("without the owner's, a renewal sent %v", m.commands.Counts())
	}
	m.config.OwnerAuth = authValue(t, "owner")
	if err := os.RemoveAll(m.config.StateDir); err != nil {
		t.Fatal(err)
	}
	m.renew(t, attest.KindActivate)
	m.renew(t, attest.KindKnown)
	if m.commands.Total() != 1 {
		t.Errorf("with both, a renewal sent %v", m.commands.Counts())
	}
}

func authValue(t *testing.T, value string) host.AuthValue {
	t.Helper()
	v, err := host.NewAuthValue([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCertificateTrouble(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	readable := tpm2.TPMANV{OwnerRead: true, AuthRead: true}
	for name, test := range map[string]struct {
		ek   string
		bend func(*testing.T, *tpmsim.TPM) error
		want string
	}{
		"erased": {"", func(_ *testing.T, sim *tpmsim.TPM) error {
			return sim.DefineNV(0x1c00002, readable, bytes.Repeat([]byte{0xff}, 900))
		}, "read rsa2048 EK certificate"},
		"no certificate inside": {"", func(_ *testing.T, sim *tpmsim.TPM) error {
			return sim.DefineNV(0x1c00002, readable, []byte{0x30, 3, 2, 1, 5})
		}, "parse EK certificate"},
		"of another class": {"", func(t *testing.T, sim *tpmsim.TPM) error {
			giveCertificate(t, sim, 0x1c00002, &other.PublicKey)
			return nil
		}, "it is for a p384 key"},
		"of another TPM": {"p384", func(t *testing.T, sim *tpmsim.TPM) error {
			giveCertificate(t, sim, 0x1c00016, &other.PublicKey)
			return nil
		}, "not the one of its certificate"},
		"not there": {"p256", func(*testing.T, *tpmsim.TPM) error { return nil }, "find p256 EK certificate"},
		"none at all": {"", func(_ *testing.T, sim *tpmsim.TPM) error {
			return errors.Join(sim.UndefineNV(0x1c00002), sim.UndefineNV(0x1c00016))
		}, "find EK certificate: no certificate in the TPM"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, tpmsim.Start(t))
			m.config.EK = test.ek
			if err := test.bend(t, m.sim); err != nil {
				t.Fatal(err)
			}
			if err := m.try(t, newServer(attest.KindActivate)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("login: %v", err)
			}
			m.with(t, func(prover *host.Prover) {
				_, err := prover.Identity(t.Context(), attest.Selection{Bank: "sha256", PCRs: []int{0}})
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("identity: %v", err)
				}
			})
		})
	}
}

// TestHostStaysWithItsKey adds and removes certificates: who a host is does
// not change by itself.
func TestHostStaysWithItsKey(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.config.EK = "p384"
	m.renew(t, attest.KindActivate)
	m.config.EK = "auto"
	certificate := func() []byte {
		var request *attest.ChallengeRequest
		m.with(t, func(prover *host.Prover) {
			var err error
			if request, err = prover.Request(t.Context(), "keylime"); err != nil {
				t.Fatal(err)
			}
		})
		return request.EKCertificate
	}
	before := certificate()
	if err := m.sim.Clear(); err != nil {
		t.Fatal(err)
	}
	m.renew(t, attest.KindActivate) // a fresh look
	if !bytes.Equal(certificate(), before) {
		t.Error("the host changed its endorsement key")
	}
	if err := errors.Join(m.sim.Clear(), m.sim.UndefineNV(0x1c00016)); err != nil {
		t.Fatal(err)
	}
	if err := m.try(t, newServer(attest.KindActivate)); err == nil || !strings.Contains(err.Error(), "which this host had before") {
		t.Errorf("its certificate is gone: %v", err)
	}
	m.config.EK = "rsa2048"
	m.renew(t, attest.KindActivate)
}

func TestTroubleWithTheDevice(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	m.config.Timeout = 50 * time.Millisecond
	if err := m.sim.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := m.try(t, newServer(attest.KindKnown)); !errors.Is(err, host.ErrNoAnswer) || m.commands.Total() != 1 {
		t.Errorf("frozen: %v after %v", err, m.commands.Counts())
	}
	if err := m.sim.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := m.sim.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Open(t.Context(), m.config); !errors.Is(err, host.ErrAbsent) {
		t.Errorf("off: %v", err)
	}
}

func TestConfigCheck(t *testing.T) {
	for _, config := range []host.Config{{EK: "rsa4096"}, {Device: "/etc/passwd"}} {
		if err := config.Check(); err == nil {
			t.Errorf("%+v was taken", config)
		}
		if _, err := host.Open(t.Context(), config); err == nil {
			t.Errorf("%+v was opened", config)
		}
	}
}

func TestReadOnlyStateIsAnError(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.config.StateDir = "/proc/self/state"
	if err := m.try(t, newServer(attest.KindKnown)); err == nil || !strings.Contains(err.Error(), "keep TPM record") {
		t.Errorf("error is %v", err)
	}
}

// TestDoubt drops a record that a server would not believe.
func TestDoubt(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	m.with(t, func(prover *host.Prover) {
		for i, want := range []bool{true, false} {
			if _, err := prover.Request(t.Context(), "keylime"); err != nil {
				t.Fatal(err)
			}
			if got := prover.Doubt(); got != want {
				t.Errorf("doubt number %d is %v", i, got)
			}
		}
		if m.commands.Counts()["NV_Read"] == 0 {
			t.Error("the TPM was not asked again")
		}
	})
}
