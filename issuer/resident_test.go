// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
	"funlab.casa/omen/tss2"
)

// openStorage opens a TPM for the length of a test.
func openStorage(t *testing.T, sim *tpmsim.TPM) *tpm.Storage {
	t.Helper()
	opened, err := tpm.Open(t.Context(), tpm.Config{Device: sim.Device()})
	if err != nil {
		t.Fatal(err)
	}
	storage, err := opened.Storage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(storage.Close(context.WithoutCancel(t.Context())), opened.Close()); err != nil {
			t.Error(err)
		}
	})
	return storage
}

// persist keeps the standard storage root where machines have it.
func persist(t *testing.T, sim *tpmsim.TPM) {
	t.Helper()
	if _, err := sim.Persist(tpm2.TPMRHOwner, tpm.SRKHandle, tpm2.ECCSRKTemplate); err != nil {
		t.Fatal(err)
	}
}

func newResident(t *testing.T, storage Storage) (key *Key, text []byte) {
	t.Helper()
	key, err := NewKey(t.Context(), ModeResident, storage)
	if err != nil {
		t.Fatal(err)
	}
	private, err := key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	return key, private.Reveal()
}

// TestResidentKeyFile: the file names its parent as the machine has it, and the
// key in it is the one that was asked for.
func TestResidentKeyFile(t *testing.T) {
	for name, row := range map[string]struct {
		prepare func(*testing.T, *tpmsim.TPM)
		parent  uint32
	}{
		"storage root made for each use": {func(*testing.T, *tpmsim.TPM) {}, 0x40000001},
		"persistent storage root":        {persist, 0x81000001},
	} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			row.prepare(t, sim)
			storage := openStorage(t, sim)
			key, text := newResident(t, storage)
			file, err := tss2.Parse(text)
			if err != nil || file.Parent != row.parent {
				t.Fatalf("parent 0x%08x, want 0x%08x: %v", file.Parent, row.parent, err)
			}
			if key.Mode() != ModeResident || key.Resident() == nil || fmt.Sprintf("%v %+v", key, key) != "[key] [key]" {
				t.Errorf("not a key in the TPM, or one that prints: %v", key)
			}
			public, err := file.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if spki, err := x509.MarshalPKIXPublicKey(public); err != nil || string(spki) != string(key.SPKI()) {
				t.Error("the file holds another key")
			}
			signer, err := NewSigners(storage).Open(t.Context(), text)
			if err != nil {
				t.Fatal(err)
			}
			checkSigns(t, signer)
		})
	}
}

func checkSigns(t *testing.T, signer crypto.Signer) {
	t.Helper()
	digest := sha256.Sum256([]byte("to be signed"))
	signature, err := signer.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{PublicKey: signer.Public(), PublicKeyAlgorithm: x509.ECDSA}
	if err := template.CheckSignature(x509.ECDSAWithSHA256, []byte("to be signed"), signature); err != nil {
		t.Error(err)
	}
	long := sha512.Sum384([]byte("to be signed"))
	for _, row := range []struct {
		digest []byte
		opts   crypto.SignerOpts
	}{{long[:], crypto.SHA384}, {digest[:], crypto.SHA384}, {long[:], crypto.SHA256}, {digest[:], crypto.Hash(0)}, {digest[:], nil}, {nil, crypto.SHA256}} {
		if _, err := signer.Sign(nil, row.digest, row.opts); err == nil || !strings.Contains(err.Error(), "SHA-256") {
			t.Errorf("%d bytes as %v: %v", len(row.digest), row.opts, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	sim := tpmsim.Start(t)
	storage := openStorage(t, sim)
	_, text := newResident(t, storage)
	file, err := tss2.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*tss2.Key)) []byte {
		other := file
		other.Public = append([]byte(nil), file.Public...)
		change(&other)
		text, err := other.PEM()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	w := newWorld(t)
	plain, err := w.key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		text []byte
		is   error // what the error is, where somebody branches on it
	}{
		"a key file":              {plain.Reveal(), nil},
		"nothing":                 {nil, nil},
		"another parent":          {changed(func(k *tss2.Key) { k.Parent = 0x81000002 }), tpm.ErrStorage},
		"the endorsement's":       {changed(func(k *tss2.Key) { k.Parent = uint32(tpm2.TPMRHEndorsement) }), tpm.ErrStorage},
		"a key that may leave":    {changed(func(k *tss2.Key) { k.Public[7] &^= 0x02 }), nil},
		"a key made by a program": {changed(func(k *tss2.Key) { k.Public[7] &^= 0x20 }), nil},
	} {
		switch _, err := NewSigners(storage).Open(t.Context(), row.text); {
		case err == nil:
			t.Errorf("%s: opened", name)
		case row.is != nil && !errors.Is(err, row.is):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeyOfAnotherTPM is a file that was copied to another machine.
func TestKeyOfAnotherTPM(t *testing.T) {
	sims := tpmsim.StartN(t, 2)
	_, text := newResident(t, openStorage(t, sims[0]))
	signer, err := NewSigners(openStorage(t, sims[1])).Open(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	if _, err := signer.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, tpm.ErrStorage) {
		t.Errorf("signed elsewhere: %v", err)
	}
}

// TestSignerEndsWithItsContext: and leaves the TPM to others.
func TestSignerEndsWithItsContext(t *testing.T) {
	sim := tpmsim.Start(t)
	storage := openStorage(t, sim)
	_, text := newResident(t, storage)
	ctx, cancel := context.WithCancel(t.Context())
	signer, err := NewSigners(storage).Open(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	digest := sha256.Sum256(nil)
	if _, err := signer.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, context.Canceled) {
		t.Errorf("signed after the end: %v", err)
	}
	other, err := NewSigners(storage).Open(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	checkSigns(t, other)
}

// residentPair is a certificate over a key in the TPM, as a service has it.
func residentPair(t *testing.T, w *world, signers *Signers, text []byte, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	signer, err := signers.Open(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	template := *w.leaf
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	leaf := w.inter.issue(t, &template, signer.Public())
	return tls.Certificate{
		Certificate: [][]byte{leaf.Raw, w.inter.cert.Raw}, Leaf: leaf, PrivateKey: signer,
		SupportedSignatureAlgorithms: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
	}
}

// TestHandshakesWithKeysInTheTPM: both ends of mutual TLS have their key in one
// TPM, and twenty connections are made at once. In TLS 1.2 too, where a client that
// prefers SHA-384 must get SHA-256.
func TestHandshakesWithKeysInTheTPM(t *testing.T) {
	sim := tpmsim.Start(t)
	storage := openStorage(t, sim)
	_, serverText := newResident(t, storage)
	_, clientText := newResident(t, storage)
	signers := NewSigners(storage)
	w := newWorld(t)
	pool := x509.NewCertPool()
	pool.AddCert(w.root.cert)
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			server := &tls.Config{
				Certificates: []tls.Certificate{residentPair(t, w, signers, serverText, x509.ExtKeyUsageServerAuth)},
				ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: version, MaxVersion: version,
			}
			client := &tls.Config{
				Certificates: []tls.Certificate{residentPair(t, w, signers, clientText, x509.ExtKeyUsageClientAuth)},
				RootCAs:      pool, ServerName: "verifier.keylime.example", MinVersion: version, MaxVersion: version,
			}
			shakeHands(t, server, client, 20)
		})
	}
}

func shakeHands(t *testing.T, server, client *tls.Config, times int) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	defer func() { listener.Close(); all.Wait() }()
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed at the end
			}
			all.Go(func() { greet(conn) })
		}
	})
	var clients sync.WaitGroup
	for range times {
		clients.Go(func() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", listener.Addr().String(), client)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if text, err := io.ReadAll(conn); err != nil || string(text) != "hello verifier.keylime.example" {
				t.Errorf("%q: %v", text, err)
			}
		})
	}
	clients.Wait()
}

// greet tells the client its name, which the server knows after the whole
// handshake only.
func greet(conn net.Conn) {
	defer conn.Close()
	secure := conn.(*tls.Conn)
	if err := secure.Handshake(); err == nil {
		fmt.Fprintf(secure, "hello %s", secure.ConnectionState().PeerCertificates[0].Subject.CommonName)
	}
}
