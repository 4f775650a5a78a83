// SPDX-License-Identifier: Apache-2.0

package tss2

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// newKey is a key file as a TPM could have made it, and its public key.
func newKey(tb testing.TB, change func(*tpm2.TPMTPublic)) (Key, *ecdsa.PublicKey) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	point, err := private.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	area := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
		Parameters:       parameters(tpm2.TPMECCNistP256, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		}),
	}
	if change != nil {
		change(&area)
	}
	return Key{Parent: 0x81000001, Public: tpm2.Marshal(&area), Private: bytes.Repeat([]byte{0xa5}, 126)}, &private.PublicKey
}

func parameters(curve tpm2.TPMECCCurve, scheme tpm2.TPMTECCScheme) tpm2.TPMUPublicParms {
	return tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: scheme,
		CurveID: curve, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	})
}

func ecdsaScheme(hash tpm2.TPMAlgID) tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})}
}

func mustPEM(tb testing.TB, key Key) []byte {
	tb.Helper()
	text, err := key.PEM()
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func TestRoundTrip(t *testing.T) {
	for _, parent := range []uint32{0x81000001, 0x40000001, 0, 0xffffffff} {
		key, public := newKey(t, nil)
		key.Parent = parent
		text := mustPEM(t, key)
		for name, spelled := range map[string][]byte{"as written": text, "without the last newline": bytes.TrimSpace(text), "spaced": append([]byte("\n \n"), text...)} {
			got, err := Parse(spelled)
			if err != nil {
				t.Fatalf("0x%08x %s: %v", parent, name, err)
			}
			if got.Parent != parent || !bytes.Equal(got.Public, key.Public) || !bytes.Equal(got.Private, key.Private) {
				t.Errorf("0x%08x %s: another key came back", parent, name)
			}
			if read, err := got.PublicKey(); err != nil || !read.Equal(public) {
				t.Errorf("0x%08x %s: public key: %v", parent, name, err)
			}
		}
	}
}

// The independent reader is encoding/asn1: no optional field, each TPM2B with its
// size.
func TestFormOfTheFile(t *testing.T) {
	key, _ := newKey(t, nil)
	block, _ := pem.Decode(mustPEM(t, key))
	var file struct {
		Type            asn1.ObjectIdentifier
		EmptyAuth       bool `asn1:"explicit,tag:0"`
		Parent          int64
		Public, Private []byte
	}
	if rest, err := asn1.Unmarshal(block.Bytes, &file); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	if file.Type.String() != "2.23.133.10.1.3" || !file.EmptyAuth || file.Parent != 0x81000001 {
		t.Errorf("type %s, emptyAuth %v, parent 0x%x", file.Type, file.EmptyAuth, file.Parent)
	}
	if want := append([]byte{0, byte(len(key.Private))}, key.Private...); !bytes.Equal(file.Private, want) {
		t.Error("the private half is not a TPM2B_PRIVATE")
	}
	if want := append([]byte{0, byte(len(key.Public))}, key.Public...); !bytes.Equal(file.Public, want) {
		t.Error("the public half is not a TPM2B_PUBLIC")
	}
}

func TestPEMBoundsTheHalves(t *testing.T) {
	for name, change := range map[string]func(*Key){
		"no public half":      func(k *Key) { k.Public = nil },
		"no private half":     func(k *Key) { k.Private = nil },
		"large private half":  func(k *Key) { k.Private = make([]byte, maxHalf+1) },
		"public half of 64KB": func(k *Key) { k.Public = make([]byte, 1<<16) },
	} {
		key, _ := newKey(t, nil)
		change(&key)
		if _, err := key.PEM(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

// optional is the form with a field that this program does not write.
type optional struct {
	Type            asn1.ObjectIdentifier
	EmptyAuth       bool   `asn1:"optional,explicit,tag:0"`
	Policy          []int  `asn1:"optional,omitempty,explicit,tag:1"`
	Secret          []byte `asn1:"optional,omitempty,explicit,tag:2"`
	Description     string `asn1:"optional,omitempty,utf8,explicit,tag:4"`
	Parent          int64
	Public, Private []byte
}

func TestParseRefuses(t *testing.T) {
	key, _ := newKey(t, nil)
	good := string(mustPEM(t, key))
	block, _ := pem.Decode([]byte(good))
	der := func(b []byte) string { return string(pem.EncodeToMemory(&pem.Block{Type: Label, Bytes: b})) }
	fields := func(change func(*optional)) string {
		f := optional{Type: loadableKey, EmptyAuth: true, Parent: 0x81000001, Public: sized(key.Public), Private: sized(key.Private)}
		change(&f)
		b, err := asn1.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		return der(b)
	}
	if _, err := Parse([]byte(fields(func(*optional) {}))); err != nil {
		t.Fatalf("the row that changes nothing: %v", err)
	}
	rows := map[string]string{
		"nothing":                 "",
		"another label":           strings.ReplaceAll(good, "TSS2 PRIVATE", "PRIVATE"),
		"text before":             "key:\n" + good,
		"text behind":             good + "x",
		"two keys":                good + good,
		"a broken block before":   "-----BEGIN " + Label + "-----\n!\n-----END " + Label + "-----\n" + good,
		"header":                  strings.Replace(good, "-----\n", "-----\nA: b\n\n", 1),
		"odd line breaks":         "-----BEGIN " + Label + "-----\n" + base64.StdEncoding.EncodeToString(block.Bytes) + "\n-----END " + Label + "-----\n",
		"large":                   good + "\n" + strings.Repeat("x", maxText),
		"no DER":                  der([]byte("x")),
		"empty":                   der(nil),
		"cut":                     der(block.Bytes[:len(block.Bytes)-1]),
		"trailing bytes":          der(append(bytes.Clone(block.Bytes), 0)),
		"importable key":          fields(func(f *optional) { f.Type = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 4} }),
		"sealed data":             fields(func(f *optional) { f.Type = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 5} }),
		"password":                fields(func(f *optional) { f.EmptyAuth = false }),
		"policy":                  fields(func(f *optional) { f.Policy = []int{1} }),
		"secret":                  fields(func(f *optional) { f.Secret = []byte{1} }),
		"description":             fields(func(f *optional) { f.Description = "verifier" }),
		"negative parent":         fields(func(f *optional) { f.Parent = -1 }),
		"parent of 33 bits":       fields(func(f *optional) { f.Parent = 1 << 32 }),
		"public half unsized":     fields(func(f *optional) { f.Public = key.Public }),
		"private half unsized":    fields(func(f *optional) { f.Private = key.Private }),
		"trailing byte in a half": fields(func(f *optional) { f.Private = append(sized(key.Private), 0) }),
		"empty private half":      fields(func(f *optional) { f.Private = []byte{0, 0} }),
		"large private half":      fields(func(f *optional) { f.Private = sized(make([]byte, maxHalf+1)) }),
		"BER boolean":             der(bytes.Replace(block.Bytes, []byte{1, 1, 0xff}, []byte{1, 1, 1}, 1)),
	}
	secret := base64.StdEncoding.EncodeToString(key.Private[3:60])
	for name, text := range rows {
		switch _, err := Parse([]byte(text)); {
		case err == nil:
			t.Errorf("%s: taken", name)
		case strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "a5a5") || len(err.Error()) > 100:
			t.Errorf("%s: the error shows the file: %v", name, err)
		}
	}
}

func TestIs(t *testing.T) {
	key, _ := newKey(t, nil)
	text := mustPEM(t, key)
	if !Is(text) || !Is(append([]byte("\n"), text...)) {
		t.Error("does not know its own file")
	}
	for _, other := range []string{"", "-----BEGIN PRIVATE KEY-----", "x" + string(text), "-----BEGIN " + Label} {
		if Is([]byte(other)) {
			t.Errorf("takes %q for one", other)
		}
	}
}

func TestPublicKey(t *testing.T) {
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"as omen makes them": nil,
		"scheme ECDSA": func(a *tpm2.TPMTPublic) {
			a.Parameters = parameters(tpm2.TPMECCNistP256, ecdsaScheme(tpm2.TPMAlgSHA256))
		},
		"with a policy":       func(a *tpm2.TPMTPublic) { a.AuthPolicy.Buffer = make([]byte, 32) },
		"counted by lock-out": func(a *tpm2.TPMTPublic) { a.ObjectAttributes.NoDA = false },
	} {
		key, public := newKey(t, change)
		if got, err := key.PublicKey(); err != nil || !got.Equal(public) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"restricted":    func(a *tpm2.TPMTPublic) { a.ObjectAttributes.Restricted = true },
		"decrypts":      func(a *tpm2.TPMTPublic) { a.ObjectAttributes.Decrypt = true },
		"does not sign": func(a *tpm2.TPMTPublic) { a.ObjectAttributes.SignEncrypt = false },
		"ECDSA SHA-384": func(a *tpm2.TPMTPublic) {
			a.Parameters = parameters(tpm2.TPMECCNistP256, ecdsaScheme(tpm2.TPMAlgSHA384))
		},
		"P-384": func(a *tpm2.TPMTPublic) {
			a.Parameters = parameters(tpm2.TPMECCNistP384, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull})
		},
		"point elsewhere": func(a *tpm2.TPMTPublic) { a.Unique = pointOf(bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{9}, 32)) },
		"short point":     func(a *tpm2.TPMTPublic) { a.Unique = pointOf([]byte{1}, []byte{2}) },
		"no point":        func(a *tpm2.TPMTPublic) { a.Unique = pointOf(nil, nil) },
	} {
		key, _ := newKey(t, change)
		if _, err := key.PublicKey(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	key, _ := newKey(t, nil)
	for cut := range key.Public {
		if _, err := (Key{Public: key.Public[:cut]}).PublicKey(); err == nil {
			t.Errorf("%d bytes of it: taken", cut)
		}
	}
	if _, err := (Key{Public: append(key.Public, 0)}).PublicKey(); err == nil {
		t.Error("trailing byte: taken")
	}
}

func pointOf(x, y []byte) tpm2.TPMUPublicID {
	return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
}

// FuzzTSS2: no text makes it panic, and what is taken is written again byte for
// byte.
func FuzzTSS2(f *testing.F) {
	key, _ := newKey(f, nil)
	f.Add(mustPEM(f, key))
	block, _ := pem.Decode(mustPEM(f, key))
	f.Add(block.Bytes)
	f.Add([]byte("-----BEGIN " + Label + "-----\n\n-----END " + Label + "-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, pem.EncodeToMemory(&pem.Block{Type: Label, Bytes: text})} {
			key, err := Parse(text)
			if err != nil {
				continue
			}
			again, err := key.PEM()
			if err != nil || !bytes.Equal(bytes.TrimSpace(again), bytes.TrimSpace(text)) {
				t.Errorf("written again it is another file: %v", err)
			}
			if public, err := key.PublicKey(); err == nil && public.Curve != elliptic.P256() {
				t.Error("a key on another curve")
			}
		}
	})
}
