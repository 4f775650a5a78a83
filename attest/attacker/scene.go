// SPDX-License-Identifier: Apache-2.0

package attacker

import (
	"context"
	"fmt"
)

// Setting is a server and what is needed to play attacks on it.
type Setting struct {
	Server   Server
	Role     string  // lets hosts in that are listed: its way in is the allow-list
	Audience string  // of the mount, as the server spells it
	Vendor   *Vendor // the server and the role believe it
	EK       KeyKind // of the TPMs

	// Enrol lists a TPM as a host that may use Role.
	Enrol func(ctx context.Context, t *TPM) error

	// OtherRole exists, but no host here may use it. Without it the attacks that
	// need it do not apply.
	OtherRole string
	// Pinned has the hosts log in before the attack, so that challenges are of kind
	// known. A role that always activates cannot have it.
	Pinned bool
	// ReadsLog says that the role judges PCR values and event log of a machine that
	// booted otherwise than before.
	ReadsLog bool
}

// Scene is what one attack is played in: TPMs of one vendor, made anew.
type Scene struct {
	Setting
	Host     *TPM // enrolled
	Second   *TPM // enrolled too
	Stranger *TPM // not enrolled
}

// Open sets the scene.
func (s Setting) Open(ctx context.Context) (*Scene, error) {
	scene := &Scene{Setting: s}
	for _, t := range []**TPM{&scene.Host, &scene.Second, &scene.Stranger} {
		var err error
		if *t, err = NewTPM(s.Vendor, s.EK); err != nil {
			return nil, err
		}
		if s.ReadsLog {
			err = (*t).Measure(PlainBoot()...)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, t := range []*TPM{scene.Host, scene.Second} {
		if err := s.Enrol(ctx, t); err != nil {
			return nil, fmt.Errorf("enrol: %w", err)
		}
		if !s.Pinned {
			continue
		}
		if err := scene.Honest(ctx, t); err != nil {
			return nil, err
		}
	}
	return scene, nil
}

// login is what an honest host says, after bend.
func (s *Scene) login(bend ...func(*Login)) Login {
	l := Login{Role: s.Role, Audience: s.Audience}
	for _, b := range bend {
		b(&l)
	}
	return l
}

// Honest logs a TPM in where that must succeed.
func (s *Scene) Honest(ctx context.Context, t *TPM) error {
	answer, err := t.Attest(ctx, s.Server, s.login())
	if err != nil {
		return fmt.Errorf("honest login: %w", err)
	}
	if !answer.In() {
		return fmt.Errorf("honest login: %w", &RefusedError{Answer: answer})
	}
	return nil
}

// moved is the host after it booted something else, honestly measured.
func (s *Scene) moved() (*TPM, error) {
	t := s.Host.Clone()
	return t, t.Measure(Event{PCR: 4, Type: EventBootServices, Data: []byte("another boot loader, 32 bytes...")})
}
