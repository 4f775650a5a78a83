// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	judge "github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/tpmsim"
)

const audience = "https://spire.funlab.casa:8200||auth/tpm"

// A machine is a device, a state directory and an event log.
type machine struct {
	sim      *tpmsim.TPM
	config   host.Config
	commands *tpmsim.Counter
}

func newMachine(t *testing.T, sim *tpmsim.TPM) *machine {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "binary_bios_measurements")
	if err := os.WriteFile(log, []byte("an event log"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &machine{sim: sim, commands: tpmsim.NewCounter(nil)}
	m.config = host.Config{
		Device: sim.Device(), Timeout: 30 * time.Second, EventLog: log,
		StateDir: filepath.Join(dir, "state"), Observe: m.commands.Count,
	}
	return m
}

// with opens the machine's TPM for the length of fn, as one renewal does, and
// starts counting commands.
func (m *machine) with(t *testing.T, fn func(*host.Prover)) {
	t.Helper()
	m.commands.Reset()
	prover, err := host.Open(t.Context(), m.config)
	if err != nil {
		t.Fatal(err)
	}
	// The judge waits for the connection, also after a t.Fatal in fn.
	defer func() {
		if err := prover.Close(); err != nil {
			t.Error(err)
		}
	}()
	fn(prover)
}

// A server is as much of one as a proof needs: what it sent, to judge by.
type server struct {
	kind      attest.Kind
	selection attest.Selection
	secret    []byte
	request   *attest.ChallengeRequest
}

func newServer(kind attest.Kind) *server {
	return &server{
		kind:      kind,
		selection: attest.Selection{Bank: "sha256", PCRs: []int{0, 1, 2, 3, 4, 7, 14}},
		secret:    bytes.Repeat([]byte{0x5e}, attest.SecretSize),
	}
}

func (s *server) challenge(t *testing.T, request *attest.ChallengeRequest) *attest.Challenge {
	t.Helper()
	s.request = request
	challenge := &attest.Challenge{Challenge: []byte("sealed"), PCRSelection: s.selection, Kind: s.kind}
	if s.kind == attest.KindKnown {
		challenge.Nonce = s.secret
		return challenge
	}
	challenge.Credential = credential(t, endorsementKey(t, request), request.AKPublic, s.secret)
	return challenge
}

func endorsementKey(t *testing.T, request *attest.ChallengeRequest) crypto.PublicKey {
	t.Helper()
	if request.EKPublic != nil {
		key, err := x509.ParsePKIXPublicKey(request.EKPublic)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	certificate, err := x509.ParseCertificate(request.EKCertificate)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.PublicKey
}

func credential(t *testing.T, ek crypto.PublicKey, akPublic, secret []byte) *attest.Credential {
	t.Helper()
	public, err := attest.EKPublic(ek)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		t.Fatal(err)
	}
	ak, err := attest.ParseAK(akPublic)
	if err != nil {
		t.Fatal(err)
	}
	blob, encrypted, err := tpm2.CreateCredential(rand.Reader, key, ak.Name(), secret)
	if err != nil {
		t.Fatal(err)
	}
	return &attest.Credential{Blob: blob, Secret: encrypted}
}

// accept has go-attestation, which knows nothing of our code, judge the proof
// against the PCRs that the device has.
func (s *server) accept(t *testing.T, sim *tpmsim.TPM, login *attest.LoginRequest) {
	t.Helper()
	if err := login.Check(); err != nil {
		t.Fatal(err)
	}
	ak, err := judge.ParseAKPublic(s.request.AKPublic)
	if err != nil {
		t.Fatal(err)
	}
	var pcrs []judge.PCR
	for _, i := range s.selection.PCRs {
		value, err := sim.PCR(i, s.selection.Algorithm())
		if err != nil {
			t.Fatal(err)
		}
		pcrs = append(pcrs, judge.PCR{Index: i, Digest: value, DigestAlg: s.selection.Hash()})
	}
	binding := attest.QuoteBinding(attest.Binding{
		Kind: s.kind, Secret: s.secret, Audience: audience, Keys: login.Keys,
		EventLogHash: [32]byte(login.EventLogHash), Ticket: login.Ticket,
	})
	quote := judge.Quote{Quote: login.Quote, Signature: login.Signature}
	if err := ak.Verify(quote, pcrs, binding[:]); err != nil {
		t.Errorf("go-attestation refuses the quote: %v", err)
	}
}

// login is a whole conversation.
func login(ctx context.Context, t *testing.T, prover *host.Prover, s *server) (*attest.LoginRequest, error) {
	t.Helper()
	request, err := prover.Request(ctx, "keylime")
	if err != nil {
		return nil, err
	}
	return prover.Login(ctx, host.Claim{Role: "keylime", Audience: audience, Keys: [][]byte{spkiB, spkiA}}, s.challenge(t, request))
}

var spkiA, spkiB = []byte("a key's SPKI"), []byte("b key's SPKI")

// renew logs in and has the proof judged.
func (m *machine) renew(t *testing.T, kind attest.Kind) *attest.LoginRequest {
	t.Helper()
	s := newServer(kind)
	var proof *attest.LoginRequest
	m.with(t, func(prover *host.Prover) {
		var err error
		if proof, err = login(t.Context(), t, prover, s); err != nil {
			t.Fatal(err)
		}
	})
	s.accept(t, m.sim, proof)
	return proof
}

// giveP256 gives a device a P-256 endorsement certificate, which swtpm does
// not make.
func giveP256(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = (tpm2.FlushContext{FlushHandle: made.ObjectHandle}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	point, err := public.Unique.ECC()
	if err != nil {
		t.Fatal(err)
	}
	uncompressed := append([]byte{4}, append(point.X.Buffer, point.Y.Buffer...)...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		t.Fatal(err)
	}
	giveCertificate(t, sim, 0x1c0000a, key)
}

func giveCertificate(t *testing.T, sim *tpmsim.TPM, index tpm2.TPMHandle, key crypto.PublicKey) {
	t.Helper()
	der, err := tpmsim.TestCA(t).Issue(&x509.Certificate{SerialNumber: big.NewInt(7)}, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.DefineNV(index, tpm2.TPMANV{OwnerRead: true, AuthRead: true}, der); err != nil {
		t.Fatal(err)
	}
}

func TestLogin(t *testing.T) {
	for _, ek := range []string{"", "auto", "rsa2048", "p256", "p384"} {
		for _, kind := range []attest.Kind{attest.KindActivate, attest.KindKnown} {
			t.Run(ek+" "+string(kind), func(t *testing.T) {
				m := newMachine(t, tpmsim.Start(t))
				m.config.EK = ek
				giveP256(t, m.sim)
				proof := m.renew(t, kind)
				if !bytes.Equal(proof.Keys[0], spkiA) || !bytes.Equal(proof.Keys[1], spkiB) {
					t.Error("keys are not in ascending order")
				}
				if want := sha256.Sum256([]byte("an event log")); !bytes.Equal(proof.EventLogHash, want[:]) {
					t.Errorf("event log hash is %x", proof.EventLogHash)
				}
			})
		}
	}
}

// TestRenewalIsOneCommand is the promise to slow TPMs.
func TestRenewalIsOneCommand(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindActivate)
	for range 2 {
		m.renew(t, attest.KindKnown)
		if counts := m.commands.Counts(); m.commands.Total() != 1 || counts["Quote"] != 1 {
			t.Errorf("a renewal sent %v", counts)
		}
	}
}

func TestRecordIsForRootAlone(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	m.renew(t, attest.KindKnown)
	for path, want := range map[string]os.FileMode{
		m.config.StateDir: os.ModeDir | 0o700,
		filepath.Join(m.config.StateDir, host.RecordName): 0o600,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v (%v)", path, info.Mode(), err)
		}
	}
	if entries, err := os.ReadDir(m.config.StateDir); err != nil || len(entries) != 1 {
		t.Errorf("state directory holds %v (%v)", entries, err)
	}
}

func TestIdentity(t *testing.T) {
	m := newMachine(t, tpmsim.Start(t))
	selection := attest.Selection{Bank: "sha256", PCRs: []int{0, 7, 16}}
	if err := m.sim.Extend(16, tpm2.TPMAlgSHA256, bytes.Repeat([]byte{3}, 32)); err != nil {
		t.Fatal(err)
	}
	var before, after *host.Identity
	identify := func(into **host.Identity) func(*host.Prover) {
		return func(prover *host.Prover) {
			identity, err := prover.Identity(t.Context(), selection)
			if err != nil {
				t.Fatal(err)
			}
			*into = identity
		}
	}
	m.with(t, identify(&before))
	if _, err := os.Stat(m.config.StateDir); err == nil || before.AKPersistent {
		t.Error("asking for the identity changed something")
	}
	proof := m.renew(t, attest.KindActivate)
	m.with(t, identify(&after))
	if !after.AKPersistent || !bytes.Equal(before.AKName, after.AKName) || before.TPMID != after.TPMID {
		t.Errorf("identity before the first login %+v, after it %+v", before, after)
	}
	checkIdentity(t, m, after, selection)
	if bytes.Contains(proof.Quote, after.PCRDigest) {
		t.Error("the digest is of another selection")
	}
}

func checkIdentity(t *testing.T, m *machine, identity *host.Identity, selection attest.Selection) {
	t.Helper()
	certificate, err := x509.ParseCertificate(identity.EKCertificate)
	if err != nil {
		t.Fatal(err)
	}
	id, err := attest.NewTPMID(certificate.PublicKey)
	if err != nil || id != identity.TPMID || identity.EK != "rsa2048" {
		t.Errorf("TPM ID %s of a %s key, want %s (%v)", identity.TPMID, identity.EK, id, err)
	}
	if identity.Manufacturer != "IBM" || identity.Firmware == "" || len(identity.AKPublic) == 0 {
		t.Errorf("%+v", identity)
	}
	s := newServer(attest.KindKnown)
	s.selection = selection
	m.with(t, func(prover *host.Prover) {
		proof, err := login(t.Context(), t, prover, s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(proof.Quote, identity.PCRDigest) {
			t.Error("a quote over the same PCRs has another digest")
		}
	})
	if len(identity.PCRs) != 3 || bytes.Equal(identity.PCRs[2], make([]byte, 32)) {
		t.Errorf("PCRs are %x", identity.PCRs)
	}
}
