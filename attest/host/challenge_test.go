// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

func TestBadChallengeReachesNoTPM(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	all := make([]int, 25)
	for i := range all {
		all[i] = i
	}
	for name, bend := range map[string]func(*attest.Challenge){
		"SHA-1 bank":       func(c *attest.Challenge) { c.PCRSelection.Bank = "sha1" },
		"no PCRs":          func(c *attest.Challenge) { c.PCRSelection.PCRs = nil },
		"too many PCRs":    func(c *attest.Challenge) { c.PCRSelection.PCRs = all },
		"PCR 24":           func(c *attest.Challenge) { c.PCRSelection.PCRs = []int{24} },
		"unknown kind":     func(c *attest.Challenge) { c.Kind = "trust-me" },
		"short nonce":      func(c *attest.Challenge) { c.Nonce = c.Nonce[:16] },
		"both kinds":       func(c *attest.Challenge) { c.Credential = &attest.Credential{Blob: []byte{1}, Secret: []byte{1}} },
		"no challenge":     func(c *attest.Challenge) { c.Challenge = nil },
		"a long challenge": func(c *attest.Challenge) { c.Challenge = make([]byte, attest.MaxChallenge+1) },
	} {
		t.Run(name, func(t *testing.T) {
			m.with(t, func(prover *host.Prover) {
				request, err := prover.Request(t.Context(), "keylime")
				if err != nil {
					t.Fatal(err)
				}
				challenge := newServer(attest.KindKnown).challenge(t, request)
				bend(challenge)
				if _, err := prover.Login(t.Context(), host.Claim{Role: "keylime", Audience: audience}, challenge); err == nil {
					t.Error("answered")
				}
				if m.commands.Total() != 0 {
					t.Errorf("sent %v", m.commands.Counts())
				}
			})
		})
	}
}

func TestBadCredential(t *testing.T) {
	devices := tpmsim.StartN(t, 2)
	m, other := newMachine(t, devices[0]), newMachine(t, devices[1])
	var foreign *attest.ChallengeRequest
	other.with(t, func(prover *host.Prover) {
		var err error
		if foreign, err = prover.Request(t.Context(), "keylime"); err != nil {
			t.Fatal(err)
		}
	})
	for name, bend := range map[string]func(*attest.ChallengeRequest){
		"for another attestation key": func(r *attest.ChallengeRequest) { r.AKPublic = foreign.AKPublic },
		"for another TPM":             func(r *attest.ChallengeRequest) { r.EKCertificate = foreign.EKCertificate },
	} {
		t.Run(name, func(t *testing.T) {
			m.with(t, func(prover *host.Prover) {
				request, err := prover.Request(t.Context(), "keylime")
				if err != nil {
					t.Fatal(err)
				}
				bend(request)
				challenge := newServer(attest.KindActivate).challenge(t, request)
				_, err = prover.Login(t.Context(), host.Claim{Role: "keylime", Audience: audience}, challenge)
				if err == nil || errors.Is(err, host.ErrStartOver) || !strings.Contains(err.Error(), "activate credential") {
					t.Errorf("error is %v", err)
				}
			})
		})
	}
}

func TestBadClaim(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	for name, claim := range map[string]host.Claim{
		"no audience":       {Role: "keylime"},
		"bad role":          {Role: "../keylime", Audience: audience},
		"a key twice":       {Role: "keylime", Audience: audience, Keys: [][]byte{spkiA, spkiA}},
		"too many keys":     {Role: "keylime", Audience: audience, Keys: make([][]byte, attest.MaxKeys+1)},
		"an audience of \n": {Role: "keylime", Audience: audience + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			m.with(t, func(prover *host.Prover) {
				request, err := prover.Request(t.Context(), "keylime")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := prover.Login(t.Context(), claim, newServer(attest.KindKnown).challenge(t, request)); err == nil {
					t.Error("answered")
				}
			})
		})
	}
	m.with(t, func(prover *host.Prover) {
		if _, err := prover.Request(t.Context(), "Key Lime"); err == nil {
			t.Error("a request for a role with a space in its name")
		}
	})
}

func TestAnswerWithoutRequest(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.with(t, func(prover *host.Prover) {
		challenge := &attest.Challenge{
			Challenge: []byte("sealed"), Kind: attest.KindKnown, Nonce: make([]byte, attest.SecretSize),
			PCRSelection: attest.Selection{Bank: "sha256", PCRs: []int{0}},
		}
		if _, err := prover.Login(t.Context(), host.Claim{Role: "keylime", Audience: audience}, challenge); err == nil {
			t.Error("answered a challenge nobody asked for")
		}
	})
}

func TestEventLog(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.config.EventLog = host.NoEventLog
	if proof := m.renew(t, attest.KindKnown); !bytes.Equal(proof.EventLogHash, make([]byte, 32)) {
		t.Errorf("without a log, its hash is %x", proof.EventLogHash)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"empty": {}, "long": make([]byte, 1<<20+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"empty", "long", "missing"} {
		m.config.EventLog = filepath.Join(dir, name)
		if err := m.try(t, newServer(attest.KindKnown)); err == nil || !strings.Contains(err.Error(), "read event log") {
			t.Errorf("%s log: %v", name, err)
		}
		if m.commands.Total() != 0 {
			t.Errorf("%s log: sent %v", name, m.commands.Counts())
		}
	}
	m.config.EventLog = filepath.Join(dir, "most")
	if err := os.WriteFile(m.config.EventLog, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m.renew(t, attest.KindKnown)
}
