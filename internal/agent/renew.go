// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/issuer"
)

// Outcome tells what a renewal did.
type Outcome struct {
	Host string `json:"host"` // the server's name for this host
	InUse
	Renewed      []string               `json:"renewed"`   // names of certificates
	Restarted    []string               `json:"restarted"` // names of services
	Certificates []install.Certificate  `json:"certificates"`
	Spent        map[Step]time.Duration `json:"spent_ns"`
	TPMCommands  map[string]int         `json:"tpm_commands"`      // by name, as in TPM 2.0 Part 2, 6.5.2
	Auto         map[string]string      `json:"auto,omitempty"`    // by certificate with key = "auto": why its key is where it is
	RenewBy      time.Time              `json:"renew_by,omitzero"` // when the server wants to see this host again at the latest, if it says
}

// Renew makes one renewal of the named certificates, or of all, and takes the
// others over into the new set. One login serves them all.
//
// Nothing on disk changes before every reply has been judged. When the new set
// cannot be installed, restarted or seen served, the set before is put back.
// Every error that is not of the configuration is a [*StepError].
func (a *Agent) Renew(ctx context.Context, only []string) (*Outcome, error) {
	return a.Enrol(ctx, only, nil)
}

// Enrol is Renew of a host that a ticket enrols. The ticket's file is removed as
// soon as this host has logged in; nil is no ticket.
func (a *Agent) Enrol(ctx context.Context, only []string, ticket *TicketFile) (*Outcome, error) {
	orders, err := a.orders(only)
	if err != nil {
		return nil, err
	}
	var outcome *Outcome
	w := a.stopwatch()
	if err = errors.Join(a.readTrust(), a.alone(ctx)); err == nil {
		outcome, err = a.renew(ctx, orders, ticket, w)
	}
	w.stop()
	a.remember(outcome, err)
	a.holdBack(ctx, err)
	if err == nil && len(only) == 0 {
		a.apply()
	}
	a.attempted(ctx, w, err)
	return outcome, err
}

// renew is the whole job, from the TPM to what is served.
func (a *Agent) renew(ctx context.Context, orders []*order, ticket *TicketFile, w *stopwatch) (outcome *Outcome, err error) {
	end, err := a.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if orders, err = a.withSpoiled(ctx, orders); err != nil {
		return nil, err
	}
	if len(orders) == 0 {
		return a.installRoots(ctx, w)
	}
	session, err := a.obtain(ctx, orders, ticket, w)
	if err != nil {
		return nil, err
	}
	outcome = &Outcome{Host: session.Host, Renewed: names(orders), Spent: w.spent, TPMCommands: w.commands,
		Auto: reasons(orders), RenewBy: renewBy(a.now(), session.RenewAfter)}
	if err := a.deployAll(ctx, orders, outcome, w); err != nil {
		return nil, err
	}
	return outcome, nil
}

// obtain is the part of a renewal that needs the TPM: keys, proof, certificates. The
// TPM is given up before services restart, which may use it themselves.
func (a *Agent) obtain(ctx context.Context, orders []*order, ticket *TicketFile, w *stopwatch) (session *bao.Session, err error) {
	w.begin(StepTPM)
	prover, err := a.openTPM(ctx, w.count)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	w.begin(StepKey)
	if err := a.chooseModes(ctx, prover, orders); err != nil {
		return nil, err
	}
	if err := a.makeKeys(ctx, prover, orders); err != nil {
		return nil, err
	}
	if session, err = a.prove(ctx, prover, orders, ticket, w); err != nil {
		return nil, err
	}
	for _, o := range orders {
		if err := a.sign(ctx, session, o, w); err != nil {
			return nil, err
		}
	}
	w.begin(StepKey)
	return session, a.seal(ctx, prover, orders)
}

// reasons are those of the keys whose mode was decided here.
func reasons(orders []*order) map[string]string {
	all := map[string]string{}
	for _, o := range orders {
		if o.why != "" {
			all[o.cert.Name] = o.why
		}
	}
	return all
}

// sign has one key signed and judges what comes back.
func (a *Agent) sign(ctx context.Context, session *bao.Session, o *order, w *stopwatch) error {
	w.begin(StepKey)
	csr, err := o.key.CSR(o.request)
	if err != nil {
		return at(StepKey, o.cert.Name, err)
	}
	w.begin(StepSign)
	signed, err := a.bao.Sign(ctx, session, o.cert.Path, o.cert.PKIRole(session.Host), csr, o.request.TTL)
	if err != nil {
		return at(StepSign, o.cert.Name, err)
	}
	w.begin(StepCheck)
	reply := issuer.Reply{Certificate: signed.Certificate, IssuingCA: signed.IssuingCA, CAChain: signed.CAChain}
	o.issued, err = issuer.Judge(reply, o.request, o.key.SPKI(), a.anchors[o.cert.Anchor], a.now())
	return at(StepCheck, o.cert.Name, err)
}
