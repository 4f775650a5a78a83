// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/issuer"
)

// Outcome tells what a renewal did.
type Outcome struct {
	Host         string                 `json:"host"` // the server's name for this host
	Generation   int                    `json:"generation"`
	Renewed      []string               `json:"renewed"`   // names of certificates
	Restarted    []string               `json:"restarted"` // names of services
	Certificates []install.Certificate  `json:"certificates"`
	Spent        map[Step]time.Duration `json:"spent_ns"`
	TPMCommands  map[string]int         `json:"tpm_commands"` // by name, as in TPM 2.0 Part 2, 6.5.2
}

// Renew makes one renewal of the named certificates, or of all, and takes the
// others over into the new set. One login serves them all.
//
// Nothing on disk changes before every reply has been judged. When the new set
// cannot be installed, restarted or seen served, the set before is put back.
// Every error that is not of the configuration is a [*StepError].
func (a *Agent) Renew(ctx context.Context, only []string) (*Outcome, error) {
	orders, err := a.orders(only)
	if err != nil {
		return nil, err
	}
	outcome, err := a.renew(ctx, orders)
	a.remember(outcome, err)
	return outcome, err
}

// renew is the whole job, from the TPM to what is served.
func (a *Agent) renew(ctx context.Context, orders []*order) (*Outcome, error) {
	w := newStopwatch()
	for _, o := range orders {
		key, err := issuer.NewKey(o.cert.Key)
		if err != nil {
			return nil, at(StepKey, o.cert.Name, err)
		}
		o.key = key
	}
	w.lap(StepKey)

	session, err := a.prove(ctx, orders, w)
	if err != nil {
		return nil, err
	}
	for _, o := range orders {
		if err := a.sign(ctx, session, o, w); err != nil {
			return nil, err
		}
	}
	items, err := a.items(orders)
	if err != nil {
		return nil, err
	}
	outcome := &Outcome{Host: session.Host, Renewed: names(orders), Spent: w.spent, TPMCommands: w.commands}
	if err := a.deploy(ctx, items, outcome, w); err != nil {
		return nil, err
	}
	return outcome, nil
}

// prove logs in with one quote that vouches for this host and for the keys. It
// starts over once, when the server asks for that or when the record of the TPM
// may be what is wrong.
func (a *Agent) prove(ctx context.Context, orders []*order, w *stopwatch) (session *bao.Session, err error) {
	config := a.tpm
	config.Observe = w.count
	prover, err := host.Open(ctx, config)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	keys := make([][]byte, len(orders))
	for i, o := range orders {
		keys[i] = o.key.SPKI()
	}
	session, err = a.converse(ctx, prover, keys, w)
	if err != nil && startOver(err, prover) && ctx.Err() == nil {
		a.log.Info("starting over", "cause", err)
		session, err = a.converse(ctx, prover, keys, w)
	}
	return session, err
}

// converse is the two round trips of the protocol.
func (a *Agent) converse(ctx context.Context, prover *host.Prover, keys [][]byte, w *stopwatch) (*bao.Session, error) {
	role := a.config.OpenBao.Role
	request, err := prover.Request(ctx, role)
	if w.lap(StepTPM); err != nil {
		return nil, at(StepTPM, "", err)
	}
	challenge, node, err := a.bao.Challenge(ctx, *request)
	if w.lap(StepChallenge); err != nil {
		return nil, at(StepChallenge, "", err)
	}
	proof, err := prover.Login(ctx, host.Claim{Role: role, Audience: node.Audience, Keys: keys}, challenge)
	if w.lap(StepTPM); err != nil {
		return nil, at(StepTPM, "", err)
	}
	session, err := a.bao.Login(ctx, node, *proof)
	w.lap(StepLogin)
	return session, at(StepLogin, "", err)
}

// startOver decides whether one more conversation can help: the challenge was
// spent, or what was said about the TPM came from a record that may be wrong.
func startOver(err error, prover *host.Prover) bool {
	var e *bao.Error
	switch {
	case errors.Is(err, host.ErrStartOver):
		return true
	case !errors.As(err, &e):
		return false
	case e.StartOver():
		return true
	default:
		return aboutKeys[e.Rule] && prover.Doubt()
	}
}

// aboutKeys are the rules that a stale record of the TPM's keys can break.
var aboutKeys = map[attest.Rule]bool{
	attest.RuleEKCertificate: true, attest.RuleEKWeak: true, attest.RuleEKAK: true,
	attest.RuleAKShape: true, attest.RuleAKHierarchy: true, attest.RuleSignature: true,
	attest.RuleHostUnknown: true, attest.RuleTPMTaken: true,
}

// sign has one key signed and judges what comes back.
func (a *Agent) sign(ctx context.Context, session *bao.Session, o *order, w *stopwatch) error {
	csr, err := o.key.CSR(o.request)
	if w.lap(StepKey); err != nil {
		return at(StepKey, o.cert.Name, err)
	}
	signed, err := a.bao.Sign(ctx, session, o.cert.Path, o.cert.PKIRole(session.Host), csr, o.request.TTL)
	if w.lap(StepSign); err != nil {
		return at(StepSign, o.cert.Name, err)
	}
	reply := issuer.Reply{Certificate: signed.Certificate, IssuingCA: signed.IssuingCA, CAChain: signed.CAChain}
	o.issued, err = issuer.Judge(reply, o.request, o.key.SPKI(), a.anchors[o.cert.Anchor], a.now())
	w.lap(StepCheck)
	return at(StepCheck, o.cert.Name, err)
}

// deploy installs a judged set, restarts what reads it and asks what is served.
func (a *Agent) deploy(ctx context.Context, items []install.Item, outcome *Outcome, w *stopwatch) (err error) {
	change, err := a.install.Install(ctx, items)
	if w.lap(StepInstall); err != nil {
		return at(StepInstall, "", err)
	}
	defer func() { err = errors.Join(err, at(StepInstall, "", change.Close())) }()
	outcome.Generation, outcome.Restarted = change.Generation(), change.Services()
	err = change.Reload(ctx)
	if w.lap(StepReload); err != nil {
		return rollBack(ctx, change, StepReload, err)
	}
	err = change.Probe(ctx)
	if w.lap(StepProbe); err != nil {
		return rollBack(ctx, change, StepProbe, err)
	}
	current, err := a.install.Current()
	if err != nil {
		return at(StepInstall, "", err)
	}
	outcome.Certificates = current.Certificates
	return nil
}

// rollBack goes on when ctx has ended: install bounds the time of each service.
func rollBack(ctx context.Context, change *install.Change, step Step, cause error) error {
	if err := change.RollBack(ctx); err != nil {
		return &StepError{Step: step, Err: errors.Join(cause, err)}
	}
	return &StepError{Step: step, Err: cause, RolledBack: true}
}
