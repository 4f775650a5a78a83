// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// certified is a TPMS_ATTEST of a certification, part by part.
func certified(signer, extraData, name, qualified []byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint32(nil, uint32(tpm2.TPMGeneratedValue)), uint16(tpm2.TPMSTAttestCertify))
	for _, part := range [][]byte{signer, extraData} {
		b = append(be.AppendUint16(b, uint16(len(part))), part...)
	}
	b = append(b, make([]byte, 8+4+4)...)
	b = append(append(b, 1), make([]byte, 8)...)
	for _, part := range [][]byte{name, qualified} {
		b = append(be.AppendUint16(b, uint16(len(part))), part...)
	}
	return b
}

// FuzzCertify reads certifications from anybody: what is accepted says, byte for
// byte, what its parts say.
func FuzzCertify(f *testing.F) {
	name := make([]byte, 34)
	f.Add(certified(name, name[:32], name, name))
	f.Add(certified(nil, nil, nil, nil))
	f.Add(append(certified(name, name, name, name), 0))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, ok := parseCertify(raw)
		if !ok {
			return
		}
		want := certified(c.signer, c.extraData, c.name, nil)
		fixed := 6 + 2 + len(c.signer) + 2 + len(c.extraData)
		if string(raw[:fixed]) != string(want[:fixed]) {
			t.Errorf("%x reads as %+v", raw, c)
		}
		if len(raw) < len(want) || len(raw) > len(want)+66 {
			t.Errorf("%d bytes read as a certification of %d", len(raw), len(want))
		}
	})
}

// FuzzKeyName reads keys from anybody: a Name comes of the one encoding of a
// P-256 key only, and every refusal is for the key.
func FuzzKeyName(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(spki)
	}
	f.Fuzz(func(t *testing.T, spki []byte) {
		name, err := attest.KeyName(spki)
		var r *attest.Refusal
		if err != nil {
			if !errors.As(err, &r) || r.Rule != attest.RuleKey {
				t.Errorf("%x: %v", spki, err)
			}
			return
		}
		key, err := x509.ParsePKIXPublicKey(spki)
		if err != nil || len(name) != 34 {
			t.Fatalf("%x has a Name of %d bytes: %v", spki, len(name), err)
		}
		if k, ok := key.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
			t.Errorf("%x is no P-256 key", spki)
		}
	})
}
