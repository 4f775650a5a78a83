// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"regexp"
	"strings"
)

// Version is the one version of the protocol that this package speaks.
const Version = 1

// Bounds, in bytes unless said otherwise. They hold before anything is parsed.
const (
	MaxChallengeRequest = 64 << 10                 // a whole ChallengeRequest as JSON
	MaxLoginRequest     = 64<<10 + MaxEventLog*4/3 // a whole LoginRequest as JSON: the log is in base64

	MaxCertificate   = 4 << 10 // one DER certificate
	MaxIntermediates = 4       // certificates
	MaxEKPublic      = 512     // DER SubjectPublicKeyInfo
	MaxAKPublic      = 512
	MaxQuote         = 1 << 10
	MaxSignature     = 600
	MaxChallenge     = 512 // a sealed challenge
	MaxKeys          = 16  // keys attested by one quote
	MaxKey           = 256 // one DER SubjectPublicKeyInfo
	MaxAudience      = 512
	MaxEventLog      = 1 << 20
	MaxPCRValue      = 64
	MaxWantedName    = 63
	TicketSize       = 32
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
	EKCertificate []byte   `json:"ek_certificate,omitempty"` // DER, trailing NV bytes removed
	EKPublic      []byte   `json:"ek_public,omitempty"`      // or, without a certificate, DER SubjectPublicKeyInfo
	Intermediates [][]byte `json:"intermediates,omitempty"`  // DER, EK issuer first
	AKPublic      []byte   `json:"ak_public"`                // TPMT_PUBLIC
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

	// Certify proves that keys are in the TPM: as long as Keys, null for a key
	// that the host only claims; or absent.
	Certify []*Certification `json:"certify,omitempty"`
	// PCRs and EventLog travel after the server answered event-log-needed: the
	// values of the selected PCRs in the selection's order, and the log whose
	// hash is quoted, where the firmware gives one.
	PCRs     [][]byte `json:"pcrs,omitempty"`
	EventLog []byte   `json:"event_log,omitempty"`
	// Ticket enrols a host that no record lists, once.
	Ticket Ticket `json:"ticket,omitempty"`
	// WantedName is a remark for the operator who looks at the pending queue.
	WantedName string `json:"wanted_name,omitempty"`
}

// Certification is what TPM2_Certify gave for one key (TPM 2.0 Part 3, 18.2).
type Certification struct {
	Info      []byte `json:"info"`      // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE over Info by the AK
}

// Ticket is the one-time secret that enrols a host: TicketSize random bytes. It
// travels in the login and is bound by the quote; it does not print.
type Ticket []byte

// String hides the ticket.
func (Ticket) String() string { return "[ticket]" }

// GoString hides the ticket.
func (Ticket) GoString() string { return "[ticket]" }

// LogValue hides the ticket.
func (Ticket) LogValue() slog.Value { return slog.StringValue("[ticket]") }

// roleName is OpenBao's GenericNameRegex in lower case, bounded.
var roleName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]{0,126}[a-z0-9_])?$`)

// DecodeChallengeRequest reads one ChallengeRequest and checks it. Every error
// is a *Refusal with rule size or syntax.
func DecodeChallengeRequest(b []byte) (*ChallengeRequest, error) {
	m := new(ChallengeRequest)
	if err := decode(b, MaxChallengeRequest, m); err != nil {
		return nil, err
	}
	return m, m.Check()
}

// DecodeLoginRequest reads one LoginRequest and checks it. Every error is a
// *Refusal with rule size or syntax.
func DecodeLoginRequest(b []byte) (*LoginRequest, error) {
	m := new(LoginRequest)
	if err := decode(b, MaxLoginRequest, m); err != nil {
		return nil, err
	}
	return m, m.Check()
}

func decode(b []byte, limit int, into any) error {
	if len(b) > limit {
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
	if err := m.checkEK(); err != nil {
		return err
	}
	return checkBytes("ak_public", m.AKPublic, MaxAKPublic)
}

// checkEK wants one endorsement key, said in one way.
func (m *ChallengeRequest) checkEK() error {
	if m.EKPublic == nil {
		return checkBytes("ek_certificate", m.EKCertificate, MaxCertificate)
	}
	if m.EKCertificate != nil || m.Intermediates != nil {
		return Refuse(RuleSyntax, "ek_public beside certificates")
	}
	return checkBytes("ek_public", m.EKPublic, MaxEKPublic)
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
	if err := checkKeys(m.Keys); err != nil {
		return err
	}
	if err := m.checkCertify(); err != nil {
		return err
	}
	if err := m.checkMeasurements(); err != nil {
		return err
	}
	return m.checkEnrolment()
}

func (m *LoginRequest) checkCertify() error {
	if m.Certify == nil {
		return nil
	}
	if len(m.Certify) != len(m.Keys) {
		return Refuse(RuleSyntax, "%d certifications for %d keys", len(m.Certify), len(m.Keys))
	}
	for _, c := range m.Certify {
		if c == nil {
			continue
		}
		if err := checkBytes("certify info", c.Info, MaxQuote); err != nil {
			return err
		}
		if err := checkBytes("certify signature", c.Signature, MaxSignature); err != nil {
			return err
		}
	}
	return nil
}

func (m *LoginRequest) checkMeasurements() error {
	if len(m.PCRs) > MaxPCR+1 || len(m.EventLog) > MaxEventLog {
		return Refuse(RuleSize, "%d PCR values, event log of %d bytes", len(m.PCRs), len(m.EventLog))
	}
	for _, value := range m.PCRs {
		if err := checkBytes("PCR value", value, MaxPCRValue); err != nil {
			return err
		}
	}
	if m.EventLog != nil && m.PCRs == nil {
		return Refuse(RuleSyntax, "event_log without pcrs")
	}
	return nil
}

func (m *LoginRequest) checkEnrolment() error {
	if m.Ticket != nil && len(m.Ticket) != TicketSize {
		return Refuse(RuleSyntax, "ticket of %d bytes", len(m.Ticket))
	}
	if m.WantedName != "" {
		return CheckHostName(m.WantedName)
	}
	return nil
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
