// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"

	"funlab.casa/omen/attest"
)

// maxAge is how long a challenge can be answered.
const maxAge = 60 * time.Second

// challenges seals what one backend needs to remember between challenge and
// login into the challenge itself, so that strangers cost no memory. Its key
// lives as long as the backend: a challenge is good in one process and on one
// mount only, and after a fail-over the host asks again.
type challenges struct {
	mount string
	now   func() time.Duration // since some moment, monotonic

	mu   sync.RWMutex
	aead cipher.AEAD // nil once dropped
	used *window
}

// sealed is what a challenge holds.
type sealed struct {
	kind          attest.Kind
	role          [sha256.Size]byte // of the name
	settings      [sha256.Size]byte // of the role as stored
	config        [sha256.Size]byte // of the mount's configuration as stored
	tpm           [sha256.Size]byte // the TPM ID without its prefix
	ekCertificate [sha256.Size]byte // zero: none
	issuerSerial  [sha256.Size]byte // of the EK certificate
	class         attest.EKClass
	akX, akY      [32]byte
	secret        [attest.SecretSize]byte
	selection     attest.Selection
	issued        time.Duration
}

func (s *sealed) tpmID() attest.TPMID {
	return attest.TPMID("sha256-" + hex.EncodeToString(s.tpm[:]))
}

func newChallenges(random io.Reader, mountUUID string, now func() time.Duration) (*challenges, error) {
	key := make([]byte, 32)
	if _, err := io.ReadFull(random, key); err != nil {
		return nil, fmt.Errorf("make challenge key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make challenge key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make challenge key: %w", err)
	}
	return &challenges{mount: mountUUID, now: now, aead: aead, used: new(window)}, nil
}

// drop forgets the key: no challenge of this object can be answered any more.
func (c *challenges) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aead = nil
}

func (c *challenges) cipher() cipher.AEAD {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.aead
}

// associated ties a challenge to its purpose and mount.
func (c *challenges) associated() []byte { return []byte("omen/1/challenge\x00" + c.mount) }

// nonce is the counter: unique under one key, because the key dies with the
// object that counts.
func nonce(counter uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), counter)
}

// The plaintext of a challenge, of fixed length: version, kind, issue time,
// counter, eight hashes and coordinates, the secret, the class of the EK, and the
// PCR selection as bank and bitmap. In front of it, in the clear, the counter; behind it the tag.
const (
	plainSize  = 1 + 1 + 8 + 8 + 8*32 + attest.SecretSize + 1 + 2 + 3
	sealedSize = 8 + plainSize + 16
)

// seal makes the challenge that holds s.
func (c *challenges) seal(s *sealed) ([]byte, error) {
	aead := c.cipher()
	if aead == nil {
		return nil, attest.Refuse(attest.RuleInternal, "challenge asked of a mount that is gone")
	}
	counter := c.used.issue()
	plain := append(make([]byte, 0, plainSize), attest.Version, kindByte(s.kind))
	plain = binary.BigEndian.AppendUint64(plain, uint64(c.now()))
	plain = binary.BigEndian.AppendUint64(plain, counter)
	for _, part := range [][]byte{
		s.role[:], s.settings[:], s.config[:], s.tpm[:], s.ekCertificate[:], s.issuerSerial[:], s.akX[:], s.akY[:], s.secret[:],
	} {
		plain = append(plain, part...)
	}
	plain = append(plain, byte(slices.Index(classes, s.class)))
	plain = binary.BigEndian.AppendUint16(plain, uint16(s.selection.Algorithm()))
	bitmap := s.selection.Bitmap()
	plain = append(plain, bitmap[:]...)
	return aead.Seal(binary.BigEndian.AppendUint64(nil, counter), nonce(counter), plain, c.associated()), nil
}

// look opens a challenge and spends nothing.
func (c *challenges) look(token []byte, role string) (*sealed, error) {
	s, _, err := c.unseal(token, role)
	return s, err
}

// open opens a challenge for the one login it is good for. Whatever happens
// next, it cannot be opened again.
func (c *challenges) open(token []byte, role string) (*sealed, error) {
	s, counter, err := c.unseal(token, role)
	if err != nil {
		return nil, err
	}
	if !c.used.spend(counter) {
		return nil, attest.Refuse(attest.RuleFreshness, "challenge was used before or is older than the window")
	}
	return s, nil
}

func (c *challenges) unseal(token []byte, role string) (*sealed, uint64, error) {
	if len(token) != sealedSize {
		return nil, 0, attest.Refuse(attest.RuleChallenge, "challenge of %d bytes", len(token))
	}
	aead := c.cipher()
	if aead == nil {
		return nil, 0, attest.Refuse(attest.RuleChallenge, "mount is gone")
	}
	counter := binary.BigEndian.Uint64(token)
	plain, err := aead.Open(nil, nonce(counter), token[8:], c.associated())
	if err != nil {
		return nil, 0, attest.Refuse(attest.RuleChallenge, "not sealed by this mount and process")
	}
	s := parseSealed(plain, counter)
	if s == nil || s.role != sha256.Sum256([]byte(role)) {
		return nil, 0, attest.Refuse(attest.RuleChallenge, "challenge is for another role or version")
	}
	if age := c.now() - s.issued; age < 0 || age > maxAge {
		return nil, 0, attest.Refuse(attest.RuleFreshness, "challenge is %s old", age)
	}
	return s, counter, nil
}

// parseSealed reads a plaintext of plainSize bytes that we sealed.
func parseSealed(plain []byte, counter uint64) *sealed {
	s := &sealed{kind: kindOf(plain[1])}
	if plain[0] != attest.Version || s.kind == "" || binary.BigEndian.Uint64(plain[10:]) != counter {
		return nil
	}
	s.issued = time.Duration(binary.BigEndian.Uint64(plain[2:]))
	rest := plain[18:]
	for _, part := range []*[32]byte{&s.role, &s.settings, &s.config, &s.tpm, &s.ekCertificate, &s.issuerSerial, &s.akX, &s.akY, &s.secret} {
		copy(part[:], rest)
		rest = rest[32:]
	}
	if int(rest[0]) >= len(classes) {
		return nil
	}
	s.class, rest = classes[rest[0]], rest[1:]
	s.selection.Bank = "sha256"
	if tpm2.TPMAlgID(binary.BigEndian.Uint16(rest)) == tpm2.TPMAlgSHA384 {
		s.selection.Bank = "sha384"
	}
	for pcr := range attest.MaxPCR + 1 {
		if rest[2+pcr/8]&(1<<(pcr%8)) != 0 {
			s.selection.PCRs = append(s.selection.PCRs, pcr)
		}
	}
	return s
}

// classes gives each class of EK a number.
var classes = []attest.EKClass{attest.ClassHardware, attest.ClassFirmware, attest.ClassVirtual, attest.ClassUncertified}

func kindByte(k attest.Kind) byte {
	if k == attest.KindActivate {
		return 1
	}
	return 2
}

func kindOf(b byte) attest.Kind {
	switch b {
	case 1:
		return attest.KindActivate
	case 2:
		return attest.KindKnown
	default:
		return ""
	}
}
