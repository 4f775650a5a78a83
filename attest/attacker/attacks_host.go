// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"context"

	"funlab.casa/omen/attest"
)

const (
	threatClone   = "reset counters going backwards; clock falling within one boot; two machines alternating under one TPM ID"
	threatUnknown = "unknown host"
	threatRole    = "a weaker role of the mount used by a host of a stronger one; a look-up that errs"
	threatTicket  = "ticket stolen, used by another TPM, sent before proof; quarantined host enrolled again"
)

// prepared completes an attack by a login of the host whose lie can go wrong.
func prepared(a Attack, lie func(*Scene, *Login) error) Attack {
	a.Prepare = func(ctx context.Context, s *Scene) (Attempt, error) {
		l := s.login()
		if err := lie(s, &l); err != nil {
			return nil, err
		}
		m, err := s.answered(ctx, s.Host, l)
		return s.sent(m), err
	}
	return a
}

// cloneAttacks are played by a copy of the host's TPM: the host goes on and logs
// in, then the copy comes.
func cloneAttacks() []Attack {
	clone := func(name string, original, copied func(*TPM)) Attack {
		return Attack{Name: "clone/" + name, Threat: threatClone, Rule: attest.RuleClone, Prepare: func(ctx context.Context, s *Scene) (Attempt, error) {
			again := s.Host.Clone()
			original(s.Host)
			copied(again)
			return s.tried(again, s.login()), s.Honest(ctx, s.Host)
		}}
	}
	unchanged := func(*TPM) {}
	return []Attack{
		clone("reset counter back", (*TPM).Reset, unchanged),
		clone("reset counter far back", func(t *TPM) { t.Counters.Reset += 1000 }, unchanged),
		clone("restart counter back", (*TPM).Restart, unchanged),
		clone("restarted more, reset less", (*TPM).Reset, func(t *TPM) { t.Counters.Restart += 1000 }),
		clone("clock back", func(t *TPM) { t.Counters.Clock += 60_000 }, unchanged),
		clone("cleared", unchanged, (*TPM).Clear),
		clone("all counters zero", (*TPM).Restart, func(t *TPM) { t.Counters = Counters{Firmware: t.Counters.Firmware} }),
		clone("restart counter fell at a reset, then the old boot", func(t *TPM) {
			t.Restart()
			t.Reset()
		}, (*TPM).Restart),
		{Name: "clone/two machines alternating", Threat: threatClone, Rule: attest.RuleClone, Prepare: alternating},
	}
}

func alternating(ctx context.Context, s *Scene) (Attempt, error) {
	again := s.Host.Clone()
	again.Reset()
	if err := s.Honest(ctx, again); err != nil {
		return nil, err
	}
	s.Host.Reset()
	s.Host.Reset()
	return s.tried(again, s.login()), s.Honest(ctx, s.Host)
}

func admissionAttacks() []Attack {
	stranger := func(name, threat string, bend func(*Login)) Attack {
		return Attack{Name: "host-unknown/" + name, Threat: threat, Rule: attest.RuleHostUnknown, Prepare: func(_ context.Context, s *Scene) (Attempt, error) {
			return s.tried(s.Stranger, s.login(bend)), nil
		}}
	}
	otherRole := Attack{Name: "role/of another host", Threat: threatRole, Rule: attest.RuleRole, OtherRole: true, Prepare: func(_ context.Context, s *Scene) (Attempt, error) {
		return s.tried(s.Host, s.login(func(l *Login) { l.Role = s.OtherRole })), nil
	}}
	return []Attack{
		stranger("certified by the same vendor", threatUnknown, func(*Login) {}),
		stranger("with an invented ticket", threatTicket, func(l *Login) { l.Ticket = make([]byte, attest.TicketSize) }),
		stranger("with a wish for a name", threatUnknown, func(l *Login) { l.WantedName = "spire" }),
		lied("ticket/invented, by a listed host", threatTicket, attest.RuleTicket, func(_ *Scene, l *Login) {
			l.Ticket = make([]byte, attest.TicketSize)
		}),
		otherRole,
		asked("role/none of that name", threatRole, attest.RuleRole, func(_ *Scene, m *attest.ChallengeRequest) error {
			m.Role = "no-such-role"
			return nil
		}),
	}
}
