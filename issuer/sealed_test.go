// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// noStorage stands in where no TPM may be asked.
type noStorage struct{ Storage }

// keeper gives out what it was handed, whatever the policy.
type keeper struct {
	Storage
	secret []byte
}

func (k keeper) Unseal(context.Context, tpm.Blob, tpm.SealPolicy) ([]byte, error) {
	return bytes.Clone(k.secret), nil
}

// present is a policy of the state that sim is in.
func present(t *testing.T, sim *tpmsim.TPM, pcrs ...int) Policy {
	t.Helper()
	policy := Policy{Bank: tpm2.TPMAlgSHA256, PCRs: pcrs, States: [][][]byte{nil}}
	for _, pcr := range pcrs {
		value, err := sim.PCR(pcr, tpm2.TPMAlgSHA256)
		if err != nil {
			t.Fatal(err)
		}
		policy.States[0] = append(policy.States[0], value)
	}
	return policy
}

func newSealed(t *testing.T, storage Storage, policy Policy) (*Key, []byte) {
	t.Helper()
	key, err := NewKey(t.Context(), ModeSealed, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Seal(t.Context(), storage, policy)
	if err != nil {
		t.Fatal(err)
	}
	return key, text
}

func TestSealedKeyComesBack(t *testing.T) {
	sim := tpmsim.Start(t)
	policy := present(t, sim, 4, 7)
	storage := openStorage(t, sim)
	for name, policy := range map[string]Policy{"in this state": policy, "in any state": {}} {
		key, text := newSealed(t, storage, policy)
		if said, err := SealedPolicy(text); err != nil || len(said.States) != len(policy.States) || len(said.PCRs) != len(policy.PCRs) {
			t.Errorf("%s: the file says %v: %v", name, said, err)
		}
		private, err := Unseal(t.Context(), storage, text, key.SPKI())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := key.PEM()
		if err != nil || !bytes.Equal(private.Reveal(), want.Reveal()) {
			t.Errorf("%s: another file than before came back: %v", name, err)
		}
		if scalar, err := key.signer().(*ecdsa.PrivateKey).Bytes(); err != nil || bytes.Contains(text, scalar) {
			t.Errorf("%s: the file shows the key", name)
		}
	}
}

func TestSealForAnotherState(t *testing.T) {
	sim := tpmsim.Start(t)
	other := present(t, sim, 7)
	other.States[0][0] = bytes.Repeat([]byte{1}, 32)
	storage := openStorage(t, sim)
	key, text := newSealed(t, storage, other)
	if _, err := Unseal(t.Context(), storage, text, key.SPKI()); !errors.Is(err, tpm.ErrState) {
		t.Errorf("given out in a state it is not sealed to: %v", err)
	}
}

func TestSealIsForSealedKeys(t *testing.T) {
	key, err := NewKey(t.Context(), ModeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := key.Seal(t.Context(), noStorage{}, Policy{}); err == nil {
		t.Error("a key of mode file was sealed")
	}
}

// sealedText is a file of the right form.
func sealedText(tb testing.TB, change func(*sealedKey)) []byte {
	tb.Helper()
	s := sealedKey{
		Version: sealedVersion, Bank: tpm2.TPMAlgSHA256, PCRs: []int{7}, States: [][][]byte{{make([]byte, 32)}},
		Public: []byte{1}, Private: []byte("secret blob"),
	}
	if change != nil {
		change(&s)
	}
	text, err := s.encode()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestSealedRefuses(t *testing.T) {
	good := string(sealedText(t, nil))
	if _, err := SealedPolicy([]byte(good)); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*sealedKey)) string { return string(sealedText(t, change)) }
	for name, text := range map[string]string{
		"nothing":            "",
		"no JSON":            "secret blob",
		"cut":                good[:len(good)-3],
		"two":                good + good,
		"spaced":             " " + good,
		"without newline":    strings.TrimSuffix(good, "\n"),
		"unknown field":      strings.Replace(good, "{", `{"auth":"x",`, 1),
		"a field twice":      strings.Replace(good, "{", `{"version":1,`, 1),
		"a field in capital": strings.Replace(good, `"version"`, `"Version"`, 1),
		"another version":    with(func(s *sealedKey) { s.Version = 2 }),
		"no public half":     with(func(s *sealedKey) { s.Public = nil }),
		"no private half":    with(func(s *sealedKey) { s.Private = nil }),
		"large half":         with(func(s *sealedKey) { s.Private = make([]byte, maxBlob+1) }),
		"large":              with(func(s *sealedKey) { s.Private = make([]byte, maxSealed) }),
		"states, no PCRs":    with(func(s *sealedKey) { s.PCRs = nil }),
		"PCRs, no states":    with(func(s *sealedKey) { s.States = nil }),
		"a bank of nothing":  with(func(s *sealedKey) { s.PCRs, s.States = nil, nil }),
		"unknown bank":       with(func(s *sealedKey) { s.Bank = 0x7777 }),
		"PCR 24":             with(func(s *sealedKey) { s.PCRs = []int{24} }),
		"short value":        with(func(s *sealedKey) { s.States[0][0] = []byte{1} }),
		"nine states": with(func(s *sealedKey) {
			for len(s.States) <= tpm.MaxStates {
				s.States = append(s.States, s.States[0])
			}
		}),
	} {
		_, err := SealedPolicy([]byte(text))
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if !errors.Is(err, errSealed) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Unseal(t.Context(), noStorage{}, []byte(text), nil); !errors.Is(err, errSealed) {
			t.Errorf("%s: unseal: %v", name, err)
		}
	}
}

// TestUnsealRefusesWhatIsNotTheKey: what the TPM gives out is judged before it is
// anybody's key, and is not shown.
func TestUnsealRefusesWhatIsNotTheKey(t *testing.T) {
	ours, other := newTestKey(t), newTestKey(t)
	spki, err := x509.MarshalPKIXPublicKey(ours.Public())
	if err != nil {
		t.Fatal(err)
	}
	der := func(curve elliptic.Curve) []byte {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	mine, err := x509.MarshalECPrivateKey(ours)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := x509.MarshalECPrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unseal(t.Context(), keeper{secret: mine}, sealedText(t, nil), spki); err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string][]byte{
		"nothing": nil, "text": []byte("a secret"), "another key": theirs, "a key on P-384": der(elliptic.P384()), "more than the key": append(bytes.Clone(mine), 0),
	} {
		private, err := Unseal(t.Context(), keeper{secret: secret}, sealedText(t, nil), spki)
		if err == nil || private.Reveal() != nil {
			t.Errorf("%s: given out", name)
		} else if len(secret) > 0 && strings.Contains(err.Error(), string(secret)) {
			t.Errorf("%s: shown in %v", name, err)
		}
	}
}

// FuzzSealed: no text makes the reader panic; what it takes, it would write; and
// what comes back is the one key of the certificate.
func FuzzSealed(f *testing.F) {
	ours := newTestKey(f)
	der, err := x509.MarshalECPrivateKey(ours)
	if err != nil {
		f.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(ours.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealedText(f, nil), der)
	f.Add(sealedText(f, func(s *sealedKey) { s.Bank, s.PCRs, s.States = 0, nil, nil }), der)
	f.Add([]byte(`{"version":1,"public":"AQ==","private":"AQ=="}`), []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, text, secret []byte) {
		policy, err := SealedPolicy(text)
		private, unsealed := Unseal(t.Context(), keeper{secret: secret}, text, spki)
		if err != nil {
			if unsealed == nil {
				t.Error("a file that says no policy was opened")
			}
			return
		}
		s, err := parseSealed(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.encode(); err != nil || !bytes.Equal(again, text) {
			t.Error("written again it is another file")
		}
		if err := policy.Check(); err != nil {
			t.Error(err)
		}
		if unsealed == nil {
			checkOurs(t, private, ours)
		}
	})
}

func checkOurs(t *testing.T, private PrivateKey, ours *ecdsa.PrivateKey) {
	t.Helper()
	block, _ := pem.Decode(private.Reveal())
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil || !ours.Equal(key) {
		t.Errorf("another key came back: %v", err)
	}
}
