// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

const (
	threatQuote     = "magic not TPM_GENERATED; a Certify or Creation sent as a Quote; sizes that lie"
	threatHierarchy = "AK in the owner hierarchy (its counters are obfuscated, so clones hide)"
	threatSelection = "PCR selection empty, smaller, larger, another bank, listed twice"
)

func signatureAttacks() []Attack {
	bent := func(name string, bend func(*attest.LoginRequest)) Attack {
		return messaged("signature/"+name, threatSignature, attest.RuleSignature, bend)
	}
	algorithm := func(id tpm2.TPMAlgID) func(*attest.LoginRequest) {
		return func(m *attest.LoginRequest) { binary.BigEndian.PutUint16(m.Signature, uint16(id)) }
	}
	hash := func(id tpm2.TPMAlgID) func(*attest.LoginRequest) {
		return func(m *attest.LoginRequest) { binary.BigEndian.PutUint16(m.Signature[2:], uint16(id)) }
	}
	signed := func(name string, sign func(*Scene, []byte) ([]byte, error)) Attack {
		return lied("signature/"+name, threatSignature, attest.RuleSignature, func(s *Scene, l *Login) {
			l.Sign = func(raw []byte) ([]byte, error) { return sign(s, raw) }
		})
	}
	return []Attack{
		bent("last bit bent", func(m *attest.LoginRequest) { m.Signature = flip(m.Signature, -1) }),
		bent("first bit of r bent", func(m *attest.LoginRequest) { m.Signature = flip(m.Signature, 6) }),
		bent("quote's last bit bent", func(m *attest.LoginRequest) { m.Quote = flip(m.Quote, -1) }),
		bent("quote's clock bent", func(m *attest.LoginRequest) { m.Quote = flip(m.Quote, 80) }),
		bent("says RSASSA", algorithm(tpm2.TPMAlgRSASSA)),
		bent("says HMAC", algorithm(tpm2.TPMAlgHMAC)),
		bent("says no algorithm", algorithm(tpm2.TPMAlgNull)),
		bent("says SHA-1", hash(tpm2.TPMAlgSHA1)),
		bent("says SHA-384", hash(tpm2.TPMAlgSHA384)),
		bent("cut", func(m *attest.LoginRequest) { m.Signature = m.Signature[:20] }),
		bent("trailing byte", func(m *attest.LoginRequest) { m.Signature = append(m.Signature, 0) }),
		bent("r is zero", func(m *attest.LoginRequest) { clear(m.Signature[6:38]) }),
		bent("r and s are zero", func(m *attest.LoginRequest) {
			clear(m.Signature[6:38])
			clear(m.Signature[40:])
		}),
		bent("r is the curve's order", func(m *attest.LoginRequest) { copy(m.Signature[6:38], orderP256) }),
		bent("without r", func(m *attest.LoginRequest) { m.Signature = []byte{0, 0x18, 0, 0x0b, 0, 0, 0, 1, 1} }),
		bent("long r", func(m *attest.LoginRequest) {
			m.Signature = append([]byte{0, 0x18, 0, 0x0b, 0, 33, 0}, m.Signature[6:]...)
		}),
		bent("r and s exchanged", func(m *attest.LoginRequest) {
			m.Signature = signature(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA256, m.Signature[40:72], m.Signature[6:38])
		}),
		signed("by SHA-1, said so", func(s *Scene, raw []byte) ([]byte, error) { return s.Host.AK.SignBy(raw, tpm2.TPMAlgSHA1) }),
		signed("by SHA-384, said so", func(s *Scene, raw []byte) ([]byte, error) { return s.Host.AK.SignBy(raw, tpm2.TPMAlgSHA384) }),
		signed("by another TPM", func(s *Scene, raw []byte) ([]byte, error) { return s.Second.AK.Sign(raw) }),
		signed("by the EK", func(s *Scene, raw []byte) ([]byte, error) { return (&AK{Key: s.Host.EK}).Sign(raw) }),
	}
}

// orderP256 is the order of P-256 (FIPS 186-5; SEC 2, 2.4.2).
var orderP256 = []byte("\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff" +
	"\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51")

func quoteAttacks() []Attack {
	bent := func(name string, bend func(*Attestation)) Attack {
		return quoted("quote-type/"+name, threatQuote, attest.RuleQuoteType, bend)
	}
	signer := func(name string, of func(*AK) []byte) Attack {
		return lied("ak-hierarchy/"+name, threatHierarchy, attest.RuleAKHierarchy, func(s *Scene, l *Login) {
			l.Quote = func(a *Attestation) { a.Signer = of(s.Host.AK) }
		})
	}
	primary := func(hierarchy tpm2.TPMHandle) func(*AK) []byte {
		return func(ak *AK) []byte { return ak.QualifiedName(hierarchy) }
	}
	return []Attack{
		bent("magic of a software key", func(a *Attestation) { a.Magic = 0 }),
		bent("magic bent", func(a *Attestation) { a.Magic++ }),
		lied("quote-type/certification of the AK", threatQuote, attest.RuleQuoteType, func(s *Scene, l *Login) {
			l.Quote = func(a *Attestation) { *a = s.Host.Certify(a.ExtraData, s.Host.AK.Name(), tpm2.TPMRHEndorsement) }
		}),
		lied("quote-type/creation of a key", threatQuote, attest.RuleQuoteType, func(s *Scene, l *Login) {
			l.Quote = func(a *Attestation) { *a = s.Host.CertifyCreation(a.ExtraData, s.Host.AK.Name(), make([]byte, 32)) }
		}),
		bent("quote that says certify", func(a *Attestation) { a.Type = uint16(tpm2.TPMSTAttestCertify) }),
		bent("quote that says creation", func(a *Attestation) { a.Type = uint16(tpm2.TPMSTAttestCreation) }),
		bent("quote that says time", func(a *Attestation) { a.Type = uint16(tpm2.TPMSTAttestTime) }),
		bent("trailing byte", func(a *Attestation) { a.Trailing = []byte{0} }),
		bent("another quote behind", func(a *Attestation) { a.Trailing = a.Bytes() }),
		bent("nothing attested", func(a *Attestation) { a.Attested = []byte{} }),
		bent("safe is 2", func(a *Attestation) { a.Safe = 2 }),
		bent("pcrDigest of SHA-1", func(a *Attestation) { a.Digest = a.Digest[:20] }),
		bent("pcrDigest of SHA-384", func(a *Attestation) { a.Digest = make([]byte, 48) }),
		bent("no pcrDigest", func(a *Attestation) { a.Digest = nil }),
		bent("17 selections", func(a *Attestation) { a.Selections = make([]PCRs, 17) }),
		bent("count of selections lies", func(a *Attestation) { a.Attested = []byte{0xff, 0xff, 0xff, 0xff, 0, 11, 3} }),
		bent("size of pcrDigest lies", func(a *Attestation) { a.Attested = []byte{0, 0, 0, 1, 0, 11, 3, 0x95, 0, 0, 0xff, 0xff, 1} }),
		bent("extraData of 67 bytes", func(a *Attestation) { a.ExtraData = make([]byte, 67) }),
		signer("owner", primary(tpm2.TPMRHOwner)),
		signer("platform", primary(tpm2.TPMRHPlatform)),
		signer("null", primary(tpm2.TPMRHNull)),
		signer("plain Name", (*AK).Name),
		signer("none", func(*AK) []byte { return nil }),
		signer("hash of another algorithm", func(ak *AK) []byte { return flip(ak.QualifiedName(tpm2.TPMRHEndorsement), 1) }),
		signer("handle", func(*AK) []byte { return []byte{0x81, 1, 0, 0x20} }),
	}
}

func bindingAttacks() []Attack {
	bound := func(name string, lie func(*Scene, *Login)) Attack {
		return lied("binding/"+name, threatBinding, attest.RuleFreshness, lie).first(attest.RuleEKAK)
	}
	extra := func(name string, bend func([]byte) []byte) Attack {
		return bound("extraData "+name, func(_ *Scene, l *Login) {
			l.Quote = func(a *Attestation) { a.ExtraData = bend(a.ExtraData) }
		})
	}
	binding := func(name string, bend func(*attest.Binding)) Attack {
		return bound(name, func(_ *Scene, l *Login) { l.Binding = bend })
	}
	message := func(name string, bend func(*attest.LoginRequest)) Attack {
		return bound(name, func(_ *Scene, l *Login) { l.Message = bend })
	}
	return []Attack{
		extra("absent", func([]byte) []byte { return nil }),
		extra("of zeros", func(b []byte) []byte { return make([]byte, len(b)) }),
		extra("one bit bent", func(b []byte) []byte { return flip(b, 0) }),
		extra("cut", func(b []byte) []byte { return b[:31] }),
		extra("with a byte more", func(b []byte) []byte { return append(b, 0) }),
		binding("the other kind", func(b *attest.Binding) {
			b.Kind = map[attest.Kind]attest.Kind{attest.KindActivate: attest.KindKnown, attest.KindKnown: attest.KindActivate}[b.Kind]
		}),
		binding("S is the challenge", func(b *attest.Binding) { b.Secret = []byte("challenge") }),
		binding("no audience", func(b *attest.Binding) { b.Audience = "" }),
		message("key added", func(m *attest.LoginRequest) { m.Keys = [][]byte{{1}} }),
		bound("key taken away", func(_ *Scene, l *Login) {
			l.Keys = [][]byte{{1}, {2}}
			l.Message = func(m *attest.LoginRequest) { m.Keys = m.Keys[:1] }
		}),
		bound("key exchanged", func(_ *Scene, l *Login) {
			l.Keys = [][]byte{{1}}
			l.Message = func(m *attest.LoginRequest) { m.Keys = [][]byte{{2}} }
		}),
		message("event log's hash changed", func(m *attest.LoginRequest) { m.EventLogHash = flip(m.EventLogHash, 0) }),
		message("event log's hash is of nothing", func(m *attest.LoginRequest) {
			h := sha256.Sum256(nil)
			m.EventLogHash = h[:]
		}),
		message("ticket added", func(m *attest.LoginRequest) { m.Ticket = make([]byte, attest.TicketSize) }),
		bound("ticket exchanged", func(_ *Scene, l *Login) {
			l.Ticket = make([]byte, attest.TicketSize)
			l.Message = func(m *attest.LoginRequest) { m.Ticket = bytes.Repeat([]byte{1}, attest.TicketSize) }
		}),
		bound("ticket taken away", func(_ *Scene, l *Login) {
			l.Ticket = make([]byte, attest.TicketSize)
			l.Message = func(m *attest.LoginRequest) { m.Ticket = nil }
		}),
	}
}

func selectionAttacks() []Attack {
	bent := func(name string, bend func(*Attestation)) Attack {
		return quoted("pcr-selection/"+name, threatSelection, attest.RulePCRSelection, bend)
	}
	lowest := func(bitmap []byte) (int, byte) {
		for i, b := range bitmap {
			if b != 0 {
				return i, b & -b
			}
		}
		return 0, 1
	}
	return []Attack{
		bent("none", func(a *Attestation) { a.Selections = nil }),
		bent("empty", func(a *Attestation) { a.Selections[0].Bitmap = make([]byte, 3) }),
		bent("fewer", func(a *Attestation) {
			i, bit := lowest(a.Selections[0].Bitmap)
			a.Selections[0].Bitmap[i] &^= bit
		}),
		bent("more", func(a *Attestation) { a.Selections[0].Bitmap[2] ^= 1 }),
		bent("all others", func(a *Attestation) {
			for i := range a.Selections[0].Bitmap {
				a.Selections[0].Bitmap[i] ^= 0xff
			}
		}),
		bent("short bitmap", func(a *Attestation) { a.Selections[0].Bitmap = a.Selections[0].Bitmap[:1] }),
		bent("long bitmap", func(a *Attestation) { a.Selections[0].Bitmap = append(a.Selections[0].Bitmap, 0) }),
		bent("SHA-1 bank", func(a *Attestation) { a.Selections[0].Bank = uint16(tpm2.TPMAlgSHA1) }),
		bent("no bank", func(a *Attestation) { a.Selections[0].Bank = uint16(tpm2.TPMAlgNull) }),
		bent("listed twice", func(a *Attestation) { a.Selections = append(a.Selections, a.Selections[0]) }),
		bent("an empty bank beside", func(a *Attestation) {
			a.Selections = append(a.Selections, PCRs{Bank: uint16(tpm2.TPMAlgSHA1), Bitmap: make([]byte, 3)})
		}),
		bent("another bank beside", func(a *Attestation) {
			a.Selections = append([]PCRs{{Bank: uint16(tpm2.TPMAlgSHA1), Bitmap: []byte{1, 0, 0}}}, a.Selections...)
		}),
	}
}
