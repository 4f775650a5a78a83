// SPDX-License-Identifier: Apache-2.0

package attacker_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/attest/bootpolicy"
	"funlab.casa/omen/attest/verify"
)

const audience = "https://spire.funlab.casa:8200||auth/tpm"

// verifier is a server that is nothing but package verify and a memory: it shows
// that the attacks work without the auth method.
type verifier struct {
	roots *verify.Roots

	mu     sync.Mutex
	hosts  map[attest.TPMID]*known
	sealed map[string]*sealed
}

// known is what is known of an enrolled host.
type known struct {
	ak     *attest.AK
	last   verify.Quote
	digest [32]byte // accepted last
}

// sealed is a challenge that was not answered yet.
type sealed struct {
	verify.Challenge
	role string
	ek   *verify.EK
	used bool
}

// policies are the roles: what each of them quotes and whether it reads the log.
var policies = map[string]struct {
	selection attest.Selection
	readsLog  bool
}{
	"plain":   {attest.Selection{Bank: "sha256", PCRs: []int{0, 2, 4, 7}}, false},
	"logged":  {attest.Selection{Bank: "sha384", PCRs: []int{0, 1, 2, 3, 4, 6, 7}}, true},
	"foreign": {attest.Selection{Bank: "sha256", PCRs: []int{0}}, false},
}

func newVerifier(t testing.TB, vendor *attacker.Vendor) *verifier {
	t.Helper()
	roots, err := verify.ParseRoots(map[attest.EKClass][]byte{attest.ClassVirtual: []byte(vendor.PEM())}, nil)
	check(t, err)
	return &verifier{roots: roots, hosts: map[attest.TPMID]*known{}, sealed: map[string]*sealed{}}
}

func (v *verifier) enrol(_ context.Context, t *attacker.TPM) error {
	id, err := t.ID()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hosts[id] = new(known)
	return err
}

// serve is an attacker.Handler.
func (v *verifier) serve(_ context.Context, path string, message []byte) (*attacker.Answer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var answer any
	var err error
	if path == "challenge" {
		answer, err = v.challenge(message)
	} else {
		err = v.login(message)
	}
	var refused *attest.Refusal
	if errors.As(err, &refused) {
		return &attacker.Answer{Status: refused.Rule.Status(), Errors: []string{refused.Public()}}, nil
	}
	if err != nil {
		return nil, err
	}
	if answer == nil {
		return &attacker.Answer{Status: 200, Auth: json.RawMessage(`{}`)}, nil
	}
	data, err := json.Marshal(answer)
	return &attacker.Answer{Status: 200, Data: data}, err
}

func (v *verifier) challenge(message []byte) (*attest.Challenge, error) {
	m, err := decode(message, attest.DecodeChallengeRequest)
	if err != nil {
		return nil, err
	}
	s := &sealed{role: m.Role, Challenge: verify.Challenge{Kind: attest.KindActivate}}
	if s.AK, err = attest.ParseAK(m.AKPublic); err != nil {
		return nil, err
	}
	policy, ok := policies[m.Role]
	if !ok {
		return nil, attest.Refuse(attest.RuleRole, "no such role")
	}
	if m.EKPublic != nil {
		s.ek, err = verify.CheckEKPublic(m.EKPublic)
	} else {
		s.ek, err = verify.CheckEK(m.EKCertificate, m.Intermediates, v.roots, time.Now())
	}
	if err != nil {
		return nil, err
	}
	s.Selection, s.Secret = policy.selection, make([]byte, attest.SecretSize)
	token := make([]byte, 32)
	_, _ = rand.Read(s.Secret)
	_, _ = rand.Read(token)
	v.sealed[string(token)] = s
	c := &attest.Challenge{Challenge: token, PCRSelection: s.Selection, Kind: s.Kind}
	if h := v.hosts[s.ek.TPMID]; h != nil && h.ak != nil && string(h.ak.Name()) == string(s.AK.Name()) {
		s.Kind, c.Kind, c.Nonce = attest.KindKnown, attest.KindKnown, s.Secret
		return c, nil
	}
	c.Credential, err = verify.Credential(rand.Reader, s.ek, s.AK, s.Secret)
	return c, err
}

func (v *verifier) login(message []byte) error {
	m, err := decode(message, attest.DecodeLoginRequest)
	if err != nil {
		return err
	}
	s := v.sealed[string(m.Challenge)]
	switch {
	case s == nil || s.role != m.Role:
		return attest.Refuse(attest.RuleChallenge, "not one of ours")
	case s.used:
		return attest.Refuse(attest.RuleFreshness, "used")
	}
	s.used = true
	q, err := verify.Login(m, s.Challenge, []string{audience})
	if err != nil {
		return err
	}
	return v.admit(m, s, q)
}

func (v *verifier) admit(m *attest.LoginRequest, s *sealed, q *verify.Quote) error {
	h := v.hosts[s.ek.TPMID]
	for id, other := range v.hosts {
		if id != s.ek.TPMID && other.ak != nil && string(other.ak.Name()) == string(s.AK.Name()) {
			return attest.Refuse(attest.RuleTPMTaken, "AK of %s", id)
		}
	}
	switch {
	case s.ek.Class == attest.ClassUncertified:
		return attest.Refuse(attest.RuleEKCertificate, "nobody certified it")
	case h == nil:
		return attest.Refuse(attest.RuleHostUnknown, "not listed")
	case m.Ticket != nil:
		return attest.Refuse(attest.RuleTicket, "not one of ours")
	case m.Role == "foreign":
		return attest.Refuse(attest.RuleRole, "not of this host")
	case s.Kind == attest.KindKnown && (h.ak == nil || string(h.ak.Name()) != string(s.AK.Name())):
		return attest.Refuse(attest.RuleState, "pin is gone")
	case backwards(&h.last, q):
		return attest.Refuse(attest.RuleClone, "counters went back")
	}
	if policies[m.Role].readsLog && h.digest != q.PCRDigest {
		if err := observe(m, s, q); err != nil {
			return err
		}
	}
	h.ak, h.last, h.digest = s.AK, *q, q.PCRDigest
	return nil
}

func backwards(last, q *verify.Quote) bool {
	if last.ResetCount != q.ResetCount {
		return q.ResetCount < last.ResetCount
	}
	if last.RestartCount != q.RestartCount {
		return q.RestartCount < last.RestartCount
	}
	return q.Clock < last.Clock
}

func observe(m *attest.LoginRequest, s *sealed, q *verify.Quote) error {
	if m.PCRs == nil {
		return attest.Refuse(attest.RuleEventLogNeeded, "nothing to judge")
	}
	if h := sum(m.EventLog); m.EventLog == nil || string(h) != string(m.EventLogHash) {
		return attest.Refuse(attest.RuleEventLog, "not the quoted one")
	}
	_, err := bootpolicy.Observe(s.Selection, m.PCRs, q.PCRDigest, m.EventLog)
	return err
}

// decode reads a message as OpenBao and its plugin do: through a map.
func decode[M any](message []byte, read func([]byte) (*M, error)) (*M, error) {
	fields := map[string]any{}
	if err := json.Unmarshal(message, &fields); err != nil {
		return nil, err
	}
	again, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	if _, twice := fields["Role"]; twice {
		return nil, attest.Refuse(attest.RuleSyntax, "unknown field")
	}
	return read(again)
}
