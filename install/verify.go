// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"errors"
	"strconv"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
)

// Finding is one question put to a service, and what came of it.
type Finding struct {
	Certificate string // name in the configuration; "" for the host as a whole
	Check       string // what was asked, for people
	Detail      string // what was learnt, when it is right
	Err         error  // what is wrong; nil when it is right
}

// The questions.
const (
	checkInstalled = "installed"
	checkServed    = "installed certificate is served"
	checkOwn       = "own certificate refused as client"
	checkClient    = "request with client certificate"
	checkAlive     = "service runs"
	checkAgent     = "agent is attested"
)

// ErrNotInstalled means that a certificate is configured and not installed.
var ErrNotInstalled = errors.New("not installed")

// Verify asks every configured service now, and the verifier about every agent
// that a tenant's item lists. It changes nothing and takes no lock. Items need
// neither chain nor key.
func (i *Installer) Verify(ctx context.Context, items []Item) []Finding {
	configured := make([]Item, 0, len(items))
	for _, item := range items {
		item.Chain, item.Key, item.CA = nil, nil, nil
		configured = append(configured, item)
	}
	p, err := i.makePlan(ctx, configured)
	if err != nil {
		return []Finding{{Check: checkInstalled, Err: err}}
	}
	defer p.close()
	_, files, err := i.installed()
	if err != nil {
		return []Finding{{Check: checkInstalled, Err: err}}
	}
	findings := checkInstalledSet(p, files, time.Now())
	for _, s := range p.services {
		findings = append(findings, checkService(ctx, p, s, files)...)
	}
	return append(findings, i.checkAgents(ctx, p, files)...)
}

// installed reads the current set without the lock: the folder that is opened
// stays whole, whatever current points to by then.
func (i *Installer) installed() (int, []beneath.File, error) {
	s, err := openStore(i.root(), i.stateDir(), i.set())
	if err != nil {
		return none, nil, errors.Join(ErrNotInstalled, err)
	}
	defer s.close()
	number, err := s.current()
	if err != nil {
		return none, nil, err
	}
	if number == none {
		return none, nil, ErrNotInstalled
	}
	files, err := s.read(number)
	return number, files, err
}

func checkInstalledSet(p *plan, files []beneath.File, now time.Time) []Finding {
	var findings []Finding
	for _, m := range p.members {
		finding := Finding{Certificate: m.item.Name, Check: checkInstalled}
		found, ok, err := pairIn(files, m.item.Name)
		switch {
		case err != nil:
			finding.Err = err
		case !ok:
			finding.Err = ErrNotInstalled
		case now.After(found.leaf().NotAfter):
			finding.Err = errors.New("expired " + found.leaf().NotAfter.Format(time.RFC3339))
		default:
			finding.Detail = "valid until " + found.leaf().NotAfter.Format(time.RFC3339)
		}
		findings = append(findings, finding)
	}
	return findings
}

// checkService puts every question to one service: is the installed leaf served
// under the full verification, is our own server certificate refused as client,
// does a client certificate of this host work, does the service still run.
func checkService(ctx context.Context, p *plan, s served, files []beneath.File) []Finding {
	name := p.find(s.profile.Name).item.Name
	own, err := keyPair(files, name)
	if err == nil && own == nil {
		err = ErrNotInstalled
	}
	if err != nil {
		return []Finding{{Certificate: name, Check: checkServed, Err: err}}
	}
	ca, _ := file(files, keylime.BundleFile)
	target := probe.Target{Address: s.address, Leaf: own.Leaf, Bundle: ca.Content}
	findings := []Finding{
		{Certificate: name, Check: checkServed, Detail: probe.Serial(own.Leaf), Err: probe.Served(ctx, target)},
		{Certificate: name, Check: checkOwn, Err: probe.Refuses(ctx, target, *own)},
	}
	client, err := clientOf(p, files)
	if client != nil || err != nil {
		if err == nil {
			err = request(ctx, s, target, client)
		}
		findings = append(findings, Finding{Certificate: name, Check: checkClient, Err: err})
	}
	return append(findings, Finding{Certificate: name, Check: checkAlive, Detail: s.controller.Name(), Err: s.controller.Alive(ctx)})
}

func request(ctx context.Context, s served, target probe.Target, client *tls.Certificate) error {
	if s.profile.Name == keylime.Agent {
		return probe.Agent(ctx, target, client)
	}
	return probe.Server(ctx, target, client)
}

// checkAgents asks the verifier, here or where the tenant's configuration says,
// about the agents that the tenant's item lists.
func (i *Installer) checkAgents(ctx context.Context, p *plan, files []beneath.File) []Finding {
	m := p.find(keylime.Tenant)
	if m == nil || len(m.item.Agents) == 0 {
		return nil
	}
	client, err := i.verifierClient(p, m, files)
	var findings []Finding
	for _, agent := range m.item.Agents {
		finding := Finding{Certificate: m.item.Name, Check: checkAgent, Detail: agent, Err: err}
		if err == nil {
			finding.Err = askAgent(ctx, client, agent)
		}
		findings = append(findings, finding)
	}
	return findings
}

func askAgent(ctx context.Context, client *probe.Client, agent string) error {
	state, err := client.AgentState(ctx, agent)
	if err != nil {
		return err
	}
	return state.Healthy(time.Now())
}

func (i *Installer) verifierClient(p *plan, tenant *member, files []beneath.File) (*probe.Client, error) {
	own, err := keyPair(files, tenant.item.Name)
	if err == nil && own == nil {
		err = ErrNotInstalled
	}
	if err != nil {
		return nil, err
	}
	ca, _ := file(files, keylime.BundleFile)
	target := probe.Target{Bundle: ca.Content}
	for _, s := range p.services {
		if s.profile.Name == keylime.Verifier {
			target.Address = s.address
			if pair, err := keyPair(files, p.find(keylime.Verifier).item.Name); err == nil && pair != nil {
				target.Leaf = pair.Leaf
			}
			return probe.NewClient(target, own)
		}
	}
	settings, err := tenant.profile.Load(i.root())
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(settings.Get("verifier_port", "8881"))
	if err != nil {
		return nil, err
	}
	target.Address = probe.Address(settings.Get("verifier_ip", ""), port)
	return probe.NewClient(target, own)
}
