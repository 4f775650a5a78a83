// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/remedy"
)

// The questions about one of Keylime's agents.
const (
	checkAgentPort = "agent serves the certificate that the registrar holds"
	checkAgent     = "agent is attested"
)

const (
	atOnce   = 8           // agents that are asked about at the same time
	patience = time.Minute // how long an attestation of an agent is waited for at most
)

// Attested asks about every agent that a tenant's item lists: whether it serves
// what the registrar holds of it, and whether the verifier's count moves on. One
// that the verifier has given up since certificates changed last, here or there, is
// reactivated, once a change; see reactivate. Without such an item there is nothing
// to find. It waits for attestations, a minute at most.
func (i *Installer) Attested(ctx context.Context, items []Item) []Finding {
	p, files, err := i.survey(ctx, items)
	if errors.Is(err, ErrNotInstalled) {
		return nil // Verify says so
	}
	if err != nil {
		return []Finding{{Check: checkInstalled, Err: err}}
	}
	defer p.close()
	m := p.find(keylime.Tenant)
	if m == nil || len(m.item.Agents) == 0 {
		return nil
	}
	w, err := i.newWatch(ctx, p, m, files)
	if err != nil {
		return []Finding{{Certificate: m.item.Name, Check: checkAgent, Err: err}}
	}
	found := make([][]Finding, len(m.item.Agents))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for at, agent := range m.item.Agents {
		group.Go(func() error {
			found[at] = w.judge(ctx, agent)
			return nil
		})
	}
	_ = group.Wait() // what goes wrong is a finding
	return slices.Concat(found...)
}

// watch asks Keylime about agents, as the tenant of this host.
type watch struct {
	installer           *Installer
	tenant              string // name of its certificate
	own                 tls.Certificate
	bundle              []byte
	verifier, registrar *probe.Client
	changed             time.Time // the set of this host, last; zero where no verifier is here
	patience            time.Duration
	mu                  sync.Mutex
}

func (i *Installer) newWatch(ctx context.Context, p *plan, tenant *member, files []beneath.File) (*watch, error) {
	own, err := p.keyPair(ctx, files, tenant.item.Name)
	if err == nil && own == nil {
		err = ErrNotInstalled
	}
	if err != nil {
		return nil, err
	}
	if signer, ok := own.PrivateKey.(crypto.Signer); ok {
		own.PrivateKey = &oneByOne{signer: signer}
	}
	ca, _ := fileset.Find(files, keylime.BundleFile)
	w := &watch{installer: i, patience: patience, tenant: tenant.item.Name, own: *own, bundle: ca.Content}
	if w.verifier, err = w.client(ctx, p, tenant, files, keylime.Verifier); err != nil {
		return nil, err
	}
	if w.registrar, err = w.client(ctx, p, tenant, files, keylime.Registrar); err != nil {
		return nil, err
	}
	if p.find(keylime.Verifier) != nil {
		w.changed, err = i.switched()
	}
	return w, err
}

// oneByOne signs for one handshake at a time: the key may be in a TPM.
type oneByOne struct {
	mu     sync.Mutex
	signer crypto.Signer
}

// Public is of crypto.Signer.
func (o *oneByOne) Public() crypto.PublicKey { return o.signer.Public() }

// Sign is of crypto.Signer.
func (o *oneByOne) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.signer.Sign(random, digest, opts)
}

// client speaks to the verifier or registrar of this host, which must serve what is
// installed, or to the one that the tenant's configuration names.
func (w *watch) client(ctx context.Context, p *plan, tenant *member, files []beneath.File, profile string) (*probe.Client, error) {
	target := probe.Target{Bundle: w.bundle}
	for _, s := range p.services {
		if s.profile.Name != profile {
			continue
		}
		target.Address = s.address
		if pair, err := p.keyPair(ctx, files, p.find(profile).item.Name); err == nil && pair != nil {
			target.Leaf = pair.Leaf
		}
		return probe.NewClient(target, &w.own)
	}
	settings, err := tenant.profile.Load(w.installer.root())
	if err != nil {
		return nil, err
	}
	server, _ := keylime.Find(profile)
	text := settings.Get(server.Component+"_port", strconv.Itoa(server.Port))
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("tenant.conf: %s_port = %q is not a port", server.Component, text)
	}
	target.Address = probe.Address(settings.Get(server.Component+"_ip", ""), int(port))
	return probe.NewClient(target, &w.own)
}

// judge puts both questions about one agent.
func (w *watch) judge(ctx context.Context, agent string) []Finding {
	port := Finding{Certificate: w.tenant, Agent: agent, Check: checkAgentPort}
	target, err := w.port(ctx, agent)
	if port.Err = err; err == nil {
		port.Detail = probe.Serial(target.Leaf) + " at " + target.Address
	}
	attested := Finding{Certificate: w.tenant, Agent: agent, Check: checkAgent}
	state, err := w.verifier.AgentState(ctx, agent)
	wait := min(state.MaxInterval(), w.patience)
	if err == nil && state.GivenUp() {
		if port.Err != nil {
			err = fmt.Errorf("operational_state %s; it is not reactivated before its port answers as it should", state.State)
		} else if attested.Did, err = w.reactivate(ctx, agent, state, target.Leaf.NotBefore); err == nil {
			wait *= 2 // the verifier begins anew
		}
	}
	if err == nil {
		attested.Detail, err = w.moves(ctx, agent, state, wait, attested.Did != "")
	}
	attested.Err = err
	return []Finding{port, attested}
}

// port makes a complete request at the agent's own port, with the tenant's
// certificate. What is served there must be what the registrar holds.
func (w *watch) port(ctx context.Context, agent string) (probe.Target, error) {
	registration, err := w.registrar.Registration(ctx, agent)
	if err != nil {
		return probe.Target{}, err
	}
	target, err := registration.Target(w.bundle)
	if err == nil {
		err = probe.Agent(ctx, target, &w.own)
	}
	return target, err
}

// moves waits until the verifier has counted another attestation. Where that may
// take longer than anybody waits, the age of the last one has to do.
func (w *watch) moves(ctx context.Context, agent string, first probe.Attestation, wait time.Duration, revived bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ticker := time.NewTicker(max(wait/20, 200*time.Millisecond))
	defer ticker.Stop()
	for last := first; ; {
		if !revived && !last.Goes() {
			return "", last.Healthy(time.Now())
		}
		select {
		case <-ctx.Done():
			return stands(first, last, wait)
		case <-ticker.C:
		}
		now, err := w.verifier.AgentState(ctx, agent)
		if ctx.Err() == nil && err != nil {
			return "", err
		}
		if err == nil {
			last = now
		}
		if last.Count != first.Count && last.Healthy(time.Now()) == nil {
			return fmt.Sprintf("attestation_count %d, then %d; operational_state %s", first.Count, last.Count, last.State), nil
		}
	}
}

// stands judges a count that did not move for as long as was waited.
func stands(first, last probe.Attestation, waited time.Duration) (string, error) {
	if err := last.Healthy(time.Now()); err != nil {
		return "", err
	}
	if waited < last.MaxInterval() {
		age := time.Since(time.Unix(last.Last, 0)).Round(time.Second)
		return fmt.Sprintf("attestation_count %d, %s ago; the next is due within %s", last.Count, age, last.MaxInterval()), nil
	}
	return "", remedy.Errorf("look at the verifier's log", "attestation_count stays at %d for %s", first.Count, waited)
}

// errStays has the hint for an agent that only people can bring back.
func errStays(agent, format string, args ...any) error {
	return remedy.Errorf("look at the agent, then: keylime_tenant -c reactivate --uuid "+agent, format, args...)
}
