// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"regexp"
	"strings"
)

// Version is the one version of the protocol that this package speaks.
const Version = 1

// Bounds, in bytes unless said otherwise. They hold before anything is parsed.
const (
	MaxMessage       = 64 << 10 // a whole request as JSON
	MaxCertificate   = 4 << 10  // one DER certificate
	MaxIntermediates = 4        // certificates
	MaxAKPublic      = 512
	MaxQuote         = 1 << 10
	MaxSignature     = 600
	MaxChallenge     = 512 // a sealed challenge
	MaxKeys          = 16  // keys attested by one quote
	MaxKey           = 256 // one DER SubjectPublicKeyInfo
	MaxAudience      = 512
	SecretSize       = 32 // S, the secret or nonce of a challenge
)

// Kind says how a challenge is answered.
type Kind string

const (
	// KindActivate wraps S so that only the TPM with the EK can unwrap it, and only
	// for the AK (TPM 2.0 Part 1, "Credential Protection").
	KindActivate Kind = "activate"
	// KindKnown sends S in the clear: this AK was activated in an earlier login.
	KindKnown Kind = "known"
)

// ChallengeRequest is what the host says first. Nothing in it is secret and
// nothing in it is believed yet.
type ChallengeRequest struct {
	V             int      `json:"v"`
	Role          string   `json:"role"`
	EKCertificate []byte   `json:"ek_certificate"`          // DER, trailing NV bytes removed
	Intermediates [][]byte `json:"intermediates,omitempty"` // DER, EK issuer first
	AKPublic      []byte   `json:"ak_public"`               // TPMT_PUBLIC
}

// Challenge is the server's answer to a ChallengeRequest.
type Challenge struct {
	Challenge    []byte      `json:"challenge"` // opaque to the host; one use, 60 s
	PCRSelection Selection   `json:"pcr_selection"`
	Kind         Kind        `json:"kind"`
	Credential   *Credential `json:"credential,omitempty"` // KindActivate: S, wrapped
	Nonce        []byte      `json:"nonce,omitempty"`      // KindKnown: S
}

// Credential is the output of TPM2_MakeCredential (TPM 2.0 Part 3, 12.6).
type Credential struct {
	Blob   []byte `json:"blob"`   // the inside of a TPM2B_ID_OBJECT
	Secret []byte `json:"secret"` // the inside of a TPM2B_ENCRYPTED_SECRET
}

// LoginRequest is the host's proof.
type LoginRequest struct {
	V            int      `json:"v"`
	Role         string   `json:"role"`
	Challenge    []byte   `json:"challenge"` // as the server sealed it
	Audience     string   `json:"audience"`  // see [Audience]
	Quote        []byte   `json:"quote"`     // TPMS_ATTEST
	Signature    []byte   `json:"signature"` // TPMT_SIGNATURE over Quote by the AK
	EventLogHash []byte   `json:"event_log_hash"`
	Keys         [][]byte `json:"keys"` // DER SubjectPublicKeyInfo, ascending, no duplicates
}

// roleName is OpenBao's GenericNameRegex in lower case, bounded.
var roleName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]{0,126}[a-z0-9_])?$`)

// DecodeChallengeRequest reads one ChallengeRequest and checks it. Every error
// is a *Refusal with rule size or syntax.
func DecodeChallengeRequest(b []byte) (*ChallengeRequest, error) {
	m := new(ChallengeRequest)
	if err := decode(b, m); err != nil {
		return nil, err
	}
	return m, m.Check()
}

// DecodeLoginRequest reads one LoginRequest and checks it. Every error is a
// *Refusal with rule size or syntax.
func DecodeLoginRequest(b []byte) (*LoginRequest, error) {
	m := new(LoginRequest)
	if err := decode(b, m); err != nil {
		return nil, err
	}
	return m, m.Check()
}

func decode(b []byte, into any) error {
	if len(b) > MaxMessage {
		return Refuse(RuleSize, "message of %d bytes", len(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return Refuse(RuleSyntax, "%v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Refuse(RuleSyntax, "data after the message")
	}
	return nil
}

// Check says whether the message is complete and within bounds.
func (m *ChallengeRequest) Check() error {
	if err := checkHead(m.V, m.Role); err != nil {
		return err
	}
	if len(m.Intermediates) > MaxIntermediates {
		return Refuse(RuleSize, "%d intermediates", len(m.Intermediates))
	}
	for _, der := range m.Intermediates {
		if err := checkBytes("intermediate", der, MaxCertificate); err != nil {
			return err
		}
	}
	if err := checkBytes("ek_certificate", m.EKCertificate, MaxCertificate); err != nil {
		return err
	}
	return checkBytes("ak_public", m.AKPublic, MaxAKPublic)
}

// Check says whether the answer is one a host can act on: exactly the parts of
// its kind, and a selection within bounds.
func (c *Challenge) Check() error {
	if err := checkBytes("challenge", c.Challenge, MaxChallenge); err != nil {
		return err
	}
	if err := c.PCRSelection.Check(); err != nil {
		return err
	}
	switch {
	case c.Kind == KindActivate && c.Credential != nil && c.Nonce == nil:
		if err := checkBytes("credential blob", c.Credential.Blob, 256); err != nil {
			return err
		}
		return checkBytes("credential secret", c.Credential.Secret, 512)
	case c.Kind == KindKnown && c.Credential == nil && len(c.Nonce) == SecretSize:
		return nil
	default:
		return Refuse(RuleSyntax, "challenge of kind %q without exactly its own parts", c.Kind)
	}
}

// Check says whether the message is complete and within bounds.
func (m *LoginRequest) Check() error {
	if err := checkHead(m.V, m.Role); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value []byte
		max   int
	}{
		{"challenge", m.Challenge, MaxChallenge},
		{"quote", m.Quote, MaxQuote},
		{"signature", m.Signature, MaxSignature},
		{"audience", []byte(m.Audience), MaxAudience},
	} {
		if err := checkBytes(f.name, f.value, f.max); err != nil {
			return err
		}
	}
	if strings.ContainsFunc(m.Audience, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Refuse(RuleSyntax, "audience with other than printable ASCII")
	}
	if len(m.EventLogHash) != sha256.Size {
		return Refuse(RuleSyntax, "event_log_hash of %d bytes", len(m.EventLogHash))
	}
	return checkKeys(m.Keys)
}

func checkHead(v int, role string) error {
	if v != Version {
		return Refuse(RuleSyntax, "version %d", v)
	}
	if len(role) > 128 {
		return Refuse(RuleSize, "role name of %d bytes", len(role))
	}
	if !roleName.MatchString(role) {
		return Refuse(RuleSyntax, "role name")
	}
	return nil
}

func checkBytes(name string, b []byte, limit int) error {
	if len(b) == 0 {
		return Refuse(RuleSyntax, "%s is absent", name)
	}
	if len(b) > limit {
		return Refuse(RuleSize, "%s of %d bytes", name, len(b))
	}
	return nil
}

func checkKeys(keys [][]byte) error {
	if len(keys) > MaxKeys {
		return Refuse(RuleSize, "%d keys", len(keys))
	}
	for i, k := range keys {
		if err := checkBytes("key", k, MaxKey); err != nil {
			return err
		}
		if i > 0 && bytes.Compare(keys[i-1], k) >= 0 {
			return Refuse(RuleSyntax, "keys not in ascending order without duplicates")
		}
	}
	return nil
}
