// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/tpm"
)

// prove logs in with one quote that vouches for this host and for the keys, which
// are made anew if the TPM turns out to have another storage root. It starts over
// while that can help, see [proof.again].
func (a *Agent) prove(ctx context.Context, prover *host.Prover, orders []*order, ticket *TicketFile, w *stopwatch) (*bao.Session, error) {
	p := &proof{agent: a, role: a.config.OpenBao.Role, prover: prover, watch: w, enrolment: a.enrolment(ticket)}
	return p.run(ctx, orders)
}

// run is the proof for these orders; there may be none.
func (p *proof) run(ctx context.Context, orders []*order) (*bao.Session, error) {
	defer p.enrolment.forget()
	p.vouchFor(orders)
	session, err := p.converse(ctx)
	for err != nil && ctx.Err() == nil && p.again(err) {
		p.agent.log.Info("starting over", "cause", err)
		if err = p.renewKeys(ctx, orders, err); err == nil {
			session, err = p.converse(ctx)
		}
	}
	if err = p.enrolment.end(err); err == nil {
		err = at(StepTPM, "", p.prover.Accepted())
	}
	return session, named(err, p.prover.TPMID())
}

// named adds to an error which TPM it is about.
func named(err error, id attest.TPMID) error {
	var step *StepError
	if errors.As(err, &step) {
		step.TPMID = id
	}
	return err
}

// A proof is one or more conversations about the same keys.
type proof struct {
	agent     *Agent
	role      string // of the auth method
	prover    *host.Prover
	watch     *stopwatch
	enrolment *enrolment
	keys      [][]byte
	residents map[string]tpm.Blob

	measurements bool                 // the server wants PCR values and event log
	said         map[attest.Rule]bool // start-overs that were asked for
	until        time.Time            // no start-over after it for a server that cannot be had; zero before the first
}

// vouchFor takes the keys that the login is to name.
func (p *proof) vouchFor(orders []*order) {
	p.keys, p.residents = nil, residents(orders)
	for _, o := range orders {
		p.keys = append(p.keys, o.key.SPKI())
	}
}

// renewKeys makes the keys anew where those that are there lie under another storage
// root than the one on record.
func (p *proof) renewKeys(ctx context.Context, orders []*order, cause error) error {
	if !errors.Is(cause, host.ErrStorage) {
		return nil
	}
	if err := p.agent.doubt(ctx, p.prover, cause); err != nil {
		return err
	}
	if err := p.agent.makeKeys(ctx, p.prover, orders); err != nil {
		return err
	}
	p.vouchFor(orders)
	return nil
}

// converse is the two round trips of the protocol.
func (p *proof) converse(ctx context.Context) (*bao.Session, error) {
	openbao, w := p.agent.config.OpenBao, p.watch
	w.begin(StepTPM)
	request, err := p.prover.Request(ctx, p.role)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	w.begin(StepChallenge)
	challenge, node, err := p.agent.bao.Challenge(ctx, *request)
	if err != nil {
		return nil, at(StepChallenge, "", err)
	}
	w.begin(StepTPM)
	login, err := p.prover.Login(ctx, host.Claim{
		Role: p.role, Audience: node.Audience, Keys: p.keys, Resident: p.residents, Measurements: p.measurements,
		Ticket: p.enrolment.opener(node), WantedName: openbao.WantedName,
	}, challenge)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	w.begin(StepLogin)
	session, err := p.agent.bao.Login(ctx, node, *login)
	return session, at(StepLogin, "", err)
}

// patience is how long a login is tried again at a cluster whose nodes come and
// go; as long as the passes over the addresses within one conversation.
const patience = 30 * time.Second

// again decides whether one more conversation, from the challenge on, can help:
//
//   - the server asked for it; for each reason once
//   - the node that made the challenge cannot be had any more, and with it the
//     process that would take it; for half a minute
//   - what was said about the TPM came from a record that may be wrong
//   - the keys are not where that record says; once
func (p *proof) again(err error) bool {
	var e *bao.Error
	switch {
	case errors.Is(err, host.ErrStartOver):
		return p.once("")
	case errors.Is(err, host.ErrStorage):
		return p.once(attest.RuleKey)
	case !errors.As(err, &e):
		return false
	case e.Kind == bao.KindRefused && e.StartOver():
		p.measurements = p.measurements || e.Rule == attest.RuleEventLogNeeded
		return p.once(e.Rule)
	case e.StartOver():
		if p.until.IsZero() {
			p.until = time.Now().Add(patience)
		}
		return time.Now().Before(p.until)
	default:
		return aboutKeys[e.Rule] && p.prover.Doubt()
	}
}

// once reports whether this reason is a new one.
func (p *proof) once(rule attest.Rule) bool {
	if p.said[rule] {
		return false
	}
	if p.said == nil {
		p.said = map[attest.Rule]bool{}
	}
	p.said[rule] = true
	return true
}

// aboutKeys are the rules that a stale record of the TPM's keys can break.
var aboutKeys = map[attest.Rule]bool{
	attest.RuleEKCertificate: true, attest.RuleEKWeak: true, attest.RuleEKAK: true,
	attest.RuleAKShape: true, attest.RuleAKHierarchy: true, attest.RuleSignature: true,
	attest.RuleHostUnknown: true, attest.RuleTPMTaken: true, attest.RulePending: true,
	attest.RuleHostDisabled: true,
}
