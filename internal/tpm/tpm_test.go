// SPDX-License-Identifier: Apache-2.0

package tpm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/tpm"
	"funlab.casa/omen/tpmsim"
)

// open connects to sim and counts what is sent.
func open(t *testing.T, sim *tpmsim.TPM, change ...func(*tpm.Config)) (*tpm.TPM, *tpmsim.Counter) {
	t.Helper()
	counter := tpmsim.NewCounter(nil)
	config := tpm.Config{Device: sim.Device(), Timeout: 30 * time.Second, LockWait: 100 * time.Millisecond, Observe: counter.Count}
	for _, f := range change {
		f(&config)
	}
	opened, err := tpm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened, counter
}

func auth(t *testing.T, value string) tpm.AuthValue {
	t.Helper()
	a, err := tpm.NewAuthValue([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// akPrimary is the attestation key of the protocol.
func akPrimary() tpm.Primary {
	return tpm.Primary{
		Template: attest.AKTemplate(),
		Handle:   attest.AKHandle,
		Accept:   func(public []byte) error { _, err := attest.ParseAK(public); return err },
	}
}

// An endorsement key of swtpm, or of a test, as a certificate describes it.
type endorsement struct {
	name     string
	index    tpm2.TPMHandle
	handle   tpm2.TPMHandle
	template func() tpm2.TPMTPublic
	branches [][]byte
}

var endorsements = []endorsement{
	{"rsa2048", 0x1c00002, 0x81010001, func() tpm2.TPMTPublic { return tpm2.RSAEKTemplate }, nil},
	{"p384", 0x1c00016, 0x81010016, nil, [][]byte{attest.EKPolicyA384, attest.EKPolicyC384}},
}

// primary builds the description of an endorsement key from its certificate.
func (e endorsement) primary(t *testing.T, key any) tpm.Primary {
	t.Helper()
	public, err := attest.EKPublic(key)
	if err != nil {
		t.Fatal(err)
	}
	template := *public
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	if e.template != nil {
		template = e.template()
	}
	want := tpm2.Marshal(*public)
	return tpm.Primary{Template: template, Handle: e.handle, Accept: func(got []byte) error {
		if !bytes.Equal(got, want) {
			return errors.New("another key")
		}
		return nil
	}}
}

func certifiedKey(t *testing.T, opened *tpm.TPM, index tpm2.TPMHandle) any {
	t.Helper()
	der, err := opened.ReadCertificate(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.PublicKey
}

func TestQuoteByKnownKeyIsOneCommand(t *testing.T) {
	opened, counter := open(t, tpmsim.Start(t))
	ctx := t.Context()
	var public []byte
	err := opened.WithPrimary(ctx, akPrimary(), func(ak tpm.Key) error {
		public = ak.Public()
		return opened.Persist(ctx, ak, attest.AKHandle)
	})
	if err != nil {
		t.Fatal(err)
	}
	known, err := tpm.KnownKey(attest.AKHandle, public)
	if err != nil {
		t.Fatal(err)
	}
	counter.Reset()
	selection := attest.Selection{Bank: "sha256", PCRs: []int{0, 7}}
	quote, signature, err := opened.Quote(ctx, known, []byte("qualifying data"), selection.TPM())
	if err != nil {
		t.Fatal(err)
	}
	if counter.Total() != 1 || counter.Counts()["Quote"] != 1 {
		t.Errorf("commands: %v", counter.Counts())
	}
	if !verify(t, public, quote, signature) {
		t.Error("the quote's signature does not verify")
	}
	if !bytes.Contains(quote, []byte("qualifying data")) {
		t.Error("the quote is not over the qualifying data")
	}
}

func verify(t *testing.T, public, quote, signature []byte) bool {
	t.Helper()
	ak, err := attest.ParseAK(public)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		t.Fatal(err)
	}
	ecc, err := parsed.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(quote)
	return ecdsa.Verify(ak.Key(), digest[:],
		new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer))
}

func TestPrimaryIsTheSameEachTime(t *testing.T) {
	sim := tpmsim.Start(t)
	opened, counter := open(t, sim)
	ctx := t.Context()
	var publics [][]byte
	take := func(persist bool) func(tpm.Key) error {
		return func(ak tpm.Key) error {
			publics = append(publics, ak.Public())
			if persist {
				return opened.Persist(ctx, ak, attest.AKHandle)
			}
			return nil
		}
	}
	for i, step := range []bool{false, true, false} {
		if err := opened.WithPrimary(ctx, akPrimary(), take(step)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if !bytes.Equal(publics[0], publics[1]) || !bytes.Equal(publics[1], publics[2]) {
		t.Error("the attestation key changed")
	}
	if made := counter.Counts()["CreatePrimary"]; made != 2 {
		t.Errorf("made the key %d times, want 2: the third time it is persistent", made)
	}
}

// TestForeignKeyIsLeftAlone puts keys that are not ours where ours would be,
// one of them made from our template in another hierarchy.
func TestForeignKeyIsLeftAlone(t *testing.T) {
	for name, foreign := range map[string]tpm2.CreatePrimary{
		"another template":  {PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)},
		"another hierarchy": {PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(attest.AKTemplate())},
	} {
		t.Run(name, func(t *testing.T) {
			sim := tpmsim.Start(t)
			before := occupy(t, sim, foreign, attest.AKHandle)
			opened, _ := open(t, sim)
			err := opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
				if ak.Persistent() {
					t.Error("took a foreign key for ours")
				}
				if err := opened.Persist(t.Context(), ak, attest.AKHandle); err == nil {
					t.Error("evicted a foreign key")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if err = opened.Close(); err != nil {
				t.Error(err)
			}
			after, err := tpm2.ReadPublic{ObjectHandle: attest.AKHandle}.Execute(sim)
			if err != nil || !bytes.Equal(after.Name.Buffer, before.Buffer) {
				t.Errorf("the foreign key is gone (%v)", err)
			}
		})
	}
}

func occupy(t *testing.T, sim *tpmsim.TPM, create tpm2.CreatePrimary, handle tpm2.TPMHandle) tpm2.TPM2BName {
	t.Helper()
	key, err := create.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: handle,
	}.Execute(sim)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.ObjectHandle}).Execute(sim); err != nil {
		t.Fatal(err)
	}
	return key.Name
}

// TestHierarchyAuthorisation gives both hierarchies a value, then works with
// it, without it and with a wrong one.
func TestHierarchyAuthorisation(t *testing.T) {
	sim := tpmsim.Start(t)
	for hierarchy, value := range map[tpm2.TPMHandle]string{tpm2.TPMRHOwner: "owner", tpm2.TPMRHEndorsement: "endorse"} {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(value)},
		}.Execute(sim)
		if err != nil {
			t.Fatal(err)
		}
	}
	try := func(owner, endorse tpm.AuthValue) (persisted, err error) {
		opened, _ := open(t, sim, func(c *tpm.Config) { c.OwnerAuth, c.EndorsementAuth = owner, endorse })
		e := endorsements[0]
		primary := e.primary(t, certifiedKey(t, opened, e.index))
		err = opened.WithPrimary(t.Context(), akPrimary(), func(ak tpm.Key) error {
			if !ak.Persistent() {
				persisted = opened.Persist(t.Context(), ak, attest.AKHandle)
			}
			return opened.WithPrimary(t.Context(), primary, func(ek tpm.Key) error {
				credential := makeCredential(t, ek.Public(), ak.Public(), []byte("s"))
				_, activated := opened.ActivateCredential(t.Context(), ak, ek, nil, credential)
				return activated
			})
		})
		return persisted, errors.Join(err, opened.Close())
	}
	var none tpm.AuthValue
	if _, err := try(none, none); err == nil || !strings.Contains(err.Error(), "another authorisation value") {
		t.Errorf("without a value: %v", err)
	}
	if persisted, err := try(none, auth(t, "endorse")); err != nil || persisted == nil {
		t.Errorf("without the owner's: %v, persisted %v", err, persisted)
	}
	if persisted, err := try(auth(t, "owner"), auth(t, "endorse")); err != nil || persisted != nil {
		t.Errorf("with both: %v, persisted %v", err, persisted)
	}
	if _, err := try(none, auth(t, "wrong")); err == nil || !strings.Contains(err.Error(), "another authorisation value") {
		t.Errorf("with a wrong one: %v", err)
	}
}

func TestReadPCRs(t *testing.T) {
	sim := tpmsim.Start(t)
	if err := sim.Extend(9, tpm2.TPMAlgSHA256, bytes.Repeat([]byte{1}, 32)); err != nil {
		t.Fatal(err)
	}
	want, err := sim.PCR(9, tpm2.TPMAlgSHA256)
	if err != nil {
		t.Fatal(err)
	}
	opened, counter := open(t, sim)
	all := make([]int, 24)
	for i := range all {
		all[i] = i
	}
	values, err := opened.ReadPCRs(t.Context(), tpm2.TPMAlgSHA256, all)
	if err != nil {
		t.Fatal(err)
	}
	if len(values) != 24 || !bytes.Equal(values[9], want) || counter.Counts()["PCR_Read"] != 3 {
		t.Errorf("%d values, PCR 9 is %x, commands %v", len(values), values[9], counter.Counts())
	}
	if _, err := opened.ReadPCRs(t.Context(), tpm2.TPMAlgSHA384, []int{0}); err == nil {
		t.Error("read a bank that the TPM does not have")
	}
}

func TestProperties(t *testing.T) {
	opened, _ := open(t, tpmsim.Start(t))
	properties, err := opened.Properties(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if properties.Manufacturer != "IBM" || !strings.Contains(properties.Vendor, "SW") || properties.Firmware == "0.0.0.0" {
		t.Errorf("%+v", properties)
	}
}

func TestFlushAfterCancel(t *testing.T) {
	opened, _ := open(t, tpmsim.Start(t))
	ctx, cancel := context.WithCancel(t.Context())
	err := opened.WithPrimary(ctx, akPrimary(), func(tpm.Key) error {
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	// The leak check at the end of the test says whether the key was flushed.
}

// TestFullQueue opens and closes faster than a TPM looks, one that does not
// look at all, then one that comes back.
func TestFullQueue(t *testing.T) {
	sim := tpmsim.Start(t)
	config := tpm.Config{Device: sim.Device(), LockWait: 50 * time.Millisecond}
	if err := sim.Freeze(); err != nil {
		t.Fatal(err)
	}
	fillQueue(t, config)
	thawed := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { thawed <- sim.Thaw() })
	config.LockWait = 10 * time.Second
	opened, err := tpm.Open(t.Context(), config)
	if err := errors.Join(err, <-thawed); err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Properties(t.Context()); err != nil {
		t.Error(err)
	}
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
}

// fillQueue connects until the TPM is said to be busy.
func fillQueue(t *testing.T, config tpm.Config) {
	t.Helper()
	for range 1000 {
		opened, err := tpm.Open(t.Context(), config)
		if errors.Is(err, tpm.ErrBusy) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := opened.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the queue does not fill")
}
