// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"funlab.casa/omen/attest"
)

// Attack is one thing that a server must refuse, and by which rule.
type Attack struct {
	Name   string // group/what is bent
	Threat string // the attack it is an instance of, in words
	Rule   attest.Rule
	// First is the rule when the host's AK is not pinned; as Rule when empty.
	First attest.Rule
	// Also counts as refused: where the message can be read so or so.
	Also []attest.Rule

	// Pinned, ReadsLog, OtherRole: makes sense only in such a [Setting].
	Pinned, ReadsLog, OtherRole bool

	// Prepare plays all that comes before and must succeed, and gives the attempt
	// itself.
	Prepare func(ctx context.Context, s *Scene) (Attempt, error)
}

// Attempt sends the message, or the last of several, that must be refused.
type Attempt func(ctx context.Context) (*Answer, error)

// Attacks is the table of all attacks; names are unique.
func Attacks() []Attack {
	return slices.Concat(
		freshnessAttacks(), audienceAttacks(), signatureAttacks(), quoteAttacks(), bindingAttacks(),
		akAttacks(), akEncodingAttacks(), residenceAttacks(), endorsementAttacks(), chainAttacks(), weakAttacks(), uncertifiedAttacks(),
		selectionAttacks(), measurementAttacks(), logBytesAttacks(), logAttacks(),
		keyAttacks(), certificationAttacks(), cloneAttacks(),
		admissionAttacks(), sizeAttacks(), requestSyntaxAttacks(), loginSyntaxAttacks(), textAttacks(),
	)
}

// Applies reports whether the attack makes sense in a setting.
func (a Attack) Applies(s Setting) bool {
	return (s.Pinned || !a.Pinned) && (s.ReadsLog || !a.ReadsLog) && (s.OtherRole != "" || !a.OtherRole)
}

// Run plays the attack in a scene of its own. It gives nil if the server refused
// it as it should and the host itself, which did nothing, still gets in.
func (a Attack) Run(ctx context.Context, s *Scene) error {
	attempt, err := a.Prepare(ctx, s)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	answer, err := attempt(ctx)
	if err != nil {
		return fmt.Errorf("attempt: %w", err)
	}
	if err := a.Judge(answer, s.Pinned); err != nil {
		return err
	}
	if err := s.Honest(ctx, s.Host); err != nil {
		return fmt.Errorf("after the attack: %w", err)
	}
	return nil
}

// Judge gives nil if an answer is exactly the refusal that must come: one rule,
// its status, no word more and nothing of what a host is after.
func (a Attack) Judge(answer *Answer, pinned bool) error {
	want := a.Rule
	if !pinned && a.First != "" {
		want = a.First
	}
	got := answer.Rule()
	switch {
	case answer.In():
		return errors.New("got in")
	case present(answer.Data):
		return fmt.Errorf("got %s", answer.Data)
	case got == "" || got != want && !slices.Contains(a.Also, got):
		return fmt.Errorf("want rule %s: %w", want, &RefusedError{Answer: answer})
	case answer.Status != got.Status():
		return fmt.Errorf("want HTTP %d: %w", got.Status(), &RefusedError{Answer: answer})
	default:
		return nil
	}
}

// sent is an attempt that sends this login.
func (s *Scene) sent(m *attest.LoginRequest) Attempt {
	return func(ctx context.Context) (*Answer, error) { return send(ctx, s.Server, m) }
}

// tried is an attempt that plays a whole login and gives the last answer.
func (s *Scene) tried(t *TPM, l Login) Attempt {
	return func(ctx context.Context) (*Answer, error) { return t.attest(ctx, s.Server, l) }
}

// answered has a TPM answer a challenge of its own.
func (s *Scene) answered(ctx context.Context, t *TPM, l Login) (*attest.LoginRequest, error) {
	c, err := t.Challenge(ctx, s.Server, l.Role)
	if err != nil {
		return nil, err
	}
	return t.Answer(c, l)
}

// lied is an attack by a login of the enrolled host that lies somewhere.
func lied(name, threat string, rule attest.Rule, lie func(*Scene, *Login)) Attack {
	return Attack{Name: name, Threat: threat, Rule: rule, Prepare: func(ctx context.Context, s *Scene) (Attempt, error) {
		l := s.login()
		lie(s, &l)
		m, err := s.answered(ctx, s.Host, l)
		return s.sent(m), err
	}}
}

// messaged is an attack that bends the login's message.
func messaged(name, threat string, rule attest.Rule, bend func(*attest.LoginRequest)) Attack {
	return lied(name, threat, rule, func(_ *Scene, l *Login) { l.Message = bend })
}

// quoted is an attack that bends the quote before it is signed.
func quoted(name, threat string, rule attest.Rule, bend func(*Attestation)) Attack {
	return lied(name, threat, rule, func(_ *Scene, l *Login) { l.Quote = bend })
}

// asked is an attack that bends the request for a challenge.
func asked(name, threat string, rule attest.Rule, bend func(*Scene, *attest.ChallengeRequest) error) Attack {
	return Attack{Name: name, Threat: threat, Rule: rule, Prepare: func(_ context.Context, s *Scene) (Attempt, error) {
		m, err := s.Host.Request(s.Role)
		if err == nil {
			err = bend(s, m)
		}
		if err != nil {
			return nil, err
		}
		message, err := json.Marshal(m)
		return func(ctx context.Context) (*Answer, error) { return s.Server.Challenge(ctx, message) }, err
	}}
}

// rawChallenge is an attack that bends the JSON of the request for a challenge.
func rawChallenge(name, threat string, rule attest.Rule, bend func(map[string]any)) Attack {
	return Attack{Name: name, Threat: threat, Rule: rule, Prepare: func(_ context.Context, s *Scene) (Attempt, error) {
		m, err := s.Host.Request(s.Role)
		if err != nil {
			return nil, err
		}
		message, err := bentJSON(m, bend)
		return func(ctx context.Context) (*Answer, error) { return s.Server.Challenge(ctx, message) }, err
	}}
}

// rawLogin is an attack that bends the JSON of a login.
func rawLogin(name, threat string, rule attest.Rule, bend func(map[string]any)) Attack {
	return Attack{Name: name, Threat: threat, Rule: rule, Prepare: func(ctx context.Context, s *Scene) (Attempt, error) {
		m, err := s.answered(ctx, s.Host, s.login())
		if err != nil {
			return nil, err
		}
		message, err := bentJSON(m, bend)
		return func(ctx context.Context) (*Answer, error) { return s.Server.Login(ctx, message) }, err
	}}
}

func bentJSON(message any, bend func(map[string]any)) ([]byte, error) {
	b, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	bend(fields)
	return json.Marshal(fields)
}

// first gives the rule for a host whose AK is not pinned.
func (a Attack) first(rule attest.Rule) Attack {
	a.First = rule
	return a
}

// also gives rules that count too.
func (a Attack) also(rules ...attest.Rule) Attack {
	a.Also = rules
	return a
}
