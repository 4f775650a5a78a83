// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"

	"funlab.casa/omen/attest"
)

const (
	threatReplay    = "quote replayed with a fresh challenge; challenge used twice, of another role, TPM or process"
	threatRelay     = "quote answered for another OpenBao, namespace or mount; redirect to another server"
	threatSignature = "signature of another key, of another algorithm, one bit bent"
	threatBinding   = "what a quote vouches for is changed after it was made"
)

func freshnessAttacks() []Attack {
	challenge := func(name string, bend func(*attest.LoginRequest)) Attack {
		return messaged("challenge/"+name, threatReplay, attest.RuleChallenge, bend)
	}
	return []Attack{
		{Name: "challenge/used twice", Threat: threatReplay, Rule: attest.RuleFreshness, Prepare: usedTwice},
		{Name: "challenge/spent by a failed login", Threat: threatReplay, Rule: attest.RuleFreshness, Prepare: spentByFailure},
		{Name: "challenge/two logins at once", Threat: threatReplay, Rule: attest.RuleFreshness, Pinned: true, Prepare: raced},
		{Name: "challenge/fresh with an old quote", Threat: threatReplay, Rule: attest.RuleFreshness, First: attest.RuleEKAK, Prepare: replayed},
		{Name: "challenge/of another TPM", Threat: threatReplay, Rule: attest.RuleSignature, Prepare: ofSecond},
		{Name: "challenge/pin replaced since", Threat: "pin replaced by a login that did not activate", Rule: attest.RuleState, Pinned: true, Prepare: pinReplaced},
		challenge("of another role", func(m *attest.LoginRequest) { m.Role = "another-role" }),
		challenge("first bit bent", func(m *attest.LoginRequest) { m.Challenge = flip(m.Challenge, 0) }),
		challenge("eighth byte bent", func(m *attest.LoginRequest) { m.Challenge = flip(m.Challenge, 7) }),
		challenge("middle bent", func(m *attest.LoginRequest) { m.Challenge = flip(m.Challenge, len(m.Challenge)/2) }),
		challenge("last bit bent", func(m *attest.LoginRequest) { m.Challenge = flip(m.Challenge, -1) }),
		challenge("cut", func(m *attest.LoginRequest) { m.Challenge = m.Challenge[:len(m.Challenge)-1] }),
		challenge("one byte", func(m *attest.LoginRequest) { m.Challenge = m.Challenge[:1] }),
		challenge("a byte more", func(m *attest.LoginRequest) { m.Challenge = append(m.Challenge, 0) }),
		challenge("invented", func(m *attest.LoginRequest) { _, _ = rand.Read(m.Challenge) }),
		challenge("zeros", func(m *attest.LoginRequest) { clear(m.Challenge) }),
	}
}

func usedTwice(ctx context.Context, s *Scene) (Attempt, error) {
	l := s.login()
	l.Measured = s.ReadsLog
	m, err := s.answered(ctx, s.Host, l)
	if err != nil {
		return nil, err
	}
	return s.sent(m), s.mustEnter(ctx, m)
}

func (s *Scene) mustEnter(ctx context.Context, m *attest.LoginRequest) error {
	answer, err := send(ctx, s.Server, m)
	if err == nil && !answer.In() {
		err = &RefusedError{Answer: answer}
	}
	return err
}

func spentByFailure(ctx context.Context, s *Scene) (Attempt, error) {
	good, err := s.answered(ctx, s.Host, s.login())
	if err != nil {
		return nil, err
	}
	bad := *good
	bad.Signature = flip(good.Signature, -1)
	answer, err := send(ctx, s.Server, &bad)
	if err == nil && answer.Rule() != attest.RuleSignature {
		err = &RefusedError{Answer: answer}
	}
	return s.sent(good), err
}

// raced sends one good login eight times at once: one gets in, and each of the
// others must be refused alike.
func raced(ctx context.Context, s *Scene) (Attempt, error) {
	m, err := s.answered(ctx, s.Host, s.login())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (*Answer, error) {
		var answers [8]*Answer
		var failed [len(answers)]error
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i], failed[i] = send(ctx, s.Server, m) })
		}
		all.Wait()
		if err := errors.Join(failed[:]...); err != nil {
			return nil, err
		}
		return loser(answers[:])
	}, nil
}

func loser(answers []*Answer) (*Answer, error) {
	var lost *Answer
	in := 0
	for _, a := range answers {
		switch {
		case a.In():
			in++
		case lost != nil && a.Rule() != lost.Rule():
			return nil, fmt.Errorf("refused by %s and by %s", a.Rule(), lost.Rule())
		default:
			lost = a
		}
	}
	if in != 1 || lost == nil {
		return nil, fmt.Errorf("%d of %d got in by one challenge", in, len(answers))
	}
	return lost, nil
}

func replayed(ctx context.Context, s *Scene) (Attempt, error) {
	old, err := s.answered(ctx, s.Host, s.login())
	if err != nil {
		return nil, err
	}
	fresh, err := s.Host.Challenge(ctx, s.Server, s.Role)
	if err != nil {
		return nil, err
	}
	old.Challenge = fresh.Challenge
	return s.sent(old), nil
}

// ofSecond has the host answer what the server asked another host.
func ofSecond(ctx context.Context, s *Scene) (Attempt, error) {
	c, err := s.Second.Challenge(ctx, s.Server, s.Role)
	if err != nil {
		return nil, err
	}
	l := s.login()
	if c.Kind == attest.KindActivate {
		if l.Secret, err = s.Second.Activate(c.Credential); err != nil {
			return nil, err
		}
	}
	m, err := s.Host.Answer(c, l)
	return s.sent(m), err
}

// pinReplaced answers with an AK that was pinned when the challenge was made.
func pinReplaced(ctx context.Context, s *Scene) (Attempt, error) {
	again := s.Host.Clone()
	if err := again.NewAK(); err != nil {
		return nil, err
	}
	s.Host.Counters.Clock += 1000
	m, err := s.answered(ctx, s.Host, s.login())
	if err != nil {
		return nil, err
	}
	return s.sent(m), s.Honest(ctx, again)
}

func audienceAttacks() []Attack {
	honest := func(name string, other func(string) string) Attack {
		return lied("audience/"+name, threatRelay, attest.RuleAudience, func(s *Scene, l *Login) { l.Audience = other(s.Audience) })
	}
	return []Attack{
		honest("another server", func(string) string { return "https://evil.example:8200||auth/tpm" }),
		honest("another mount", func(a string) string { return a + "2" }),
		honest("below the mount", func(a string) string { return a + "/" }),
		honest("another namespace", func(a string) string { return strings.Replace(a, "|", "|other/", 1) }),
		honest("another scheme", func(a string) string { return strings.Replace(a, "https:", "http:", 1) }),
		honest("another port", func(a string) string { return strings.Replace(a, "|", "1|", 1) }),
		honest("upper case", strings.ToUpper),
		honest("part of it", func(a string) string { return a[:len(a)-1] }),
		honest("two in one", func(a string) string { return a + "," + a }),
		lied("audience/rewritten by the relay", threatRelay, attest.RuleFreshness, func(s *Scene, l *Login) {
			l.Audience = "https://evil.example:8200||auth/tpm"
			l.Message = func(m *attest.LoginRequest) { m.Audience = s.Audience }
		}).first(attest.RuleEKAK),
		lied("audience/rewritten by the host", threatRelay, attest.RuleFreshness, func(_ *Scene, l *Login) {
			l.Message = func(m *attest.LoginRequest) { m.Audience = "https://evil.example:8200||auth/tpm" }
		}).first(attest.RuleEKAK),
	}
}
