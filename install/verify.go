// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/record"
)

// Finding is one question put to a service, and what came of it.
type Finding struct {
	Certificate string // name in the configuration; "" for the host as a whole
	Agent       string // UUID, where an agent of Keylime is asked about
	Check       string // what was asked, for people
	Detail      string // what was learnt, when it is right
	Did         string // what was done about it, for people; mostly nothing
	Err         error  // what is wrong; nil when it is right
}

// The questions.
const (
	checkInstalled = "installed"
	checkServed    = "installed certificate is served"
	checkNobody    = "client without certificate refused"
	checkOwn       = "own certificate refused as client"
	checkClient    = "request with client certificate"
	checkAlive     = "service runs"
)

// ErrNotInstalled means that a certificate is configured and not installed.
var ErrNotInstalled = errors.New("not installed")

// Verify asks every configured service now. It changes nothing and takes no lock.
// Items need neither chain nor key.
func (i *Installer) Verify(ctx context.Context, items []Item) []Finding {
	p, files, err := i.survey(ctx, items)
	if err != nil {
		return []Finding{{Check: checkInstalled, Err: err}}
	}
	defer p.close()
	findings := append(checkInstalledSet(p, files, time.Now()), i.checkUnchanged()...)
	for _, s := range p.services {
		findings = append(findings, checkService(ctx, p, s, files)...)
	}
	return findings
}

// survey looks up what is configured and reads what is installed. The plan is the
// caller's to close.
func (i *Installer) survey(ctx context.Context, items []Item) (*plan, []beneath.File, error) {
	p, err := i.makePlan(ctx, withoutBytes(items))
	if err != nil {
		return nil, nil, err
	}
	_, files, err := i.installed()
	if err != nil {
		p.close()
		return nil, nil, err
	}
	return p, files, nil
}

// installed reads the current set without the lock: the folder that is opened
// stays whole, whatever current points to by then.
func (i *Installer) installed() (int, []beneath.File, error) {
	s, err := generation.Open(i.root(), i.stateDir(), i.set().Name)
	if err != nil {
		return record.None, nil, errors.Join(ErrNotInstalled, err)
	}
	defer s.Close()
	number, err := s.Current()
	if err != nil {
		return record.None, nil, err
	}
	if number == record.None {
		return record.None, nil, ErrNotInstalled
	}
	files, err := s.Read(number)
	if errors.Is(err, fs.ErrNotExist) { // the link leads to a set that is gone
		return record.None, nil, errors.Join(ErrNotInstalled, err)
	}
	return number, files, err
}

func checkInstalledSet(p *plan, files []beneath.File, now time.Time) []Finding {
	var findings []Finding
	for _, m := range p.members {
		if m.profile.RootOnly {
			findings = append(findings, m.checkRoot(files))
			continue
		}
		finding := Finding{Certificate: m.item.Name, Check: checkInstalled}
		found, ok, err := fileset.Pair(files, m.item.Name)
		switch {
		case err != nil:
			finding.Err = err
		case !ok:
			finding.Err = ErrNotInstalled
		case now.After(found.Leaf().NotAfter):
			finding.Err = errors.New("expired " + found.Leaf().NotAfter.Format(time.RFC3339))
		default:
			finding.Detail = "valid until " + found.Leaf().NotAfter.Format(time.RFC3339)
		}
		findings = append(findings, finding)
	}
	return findings
}

// checkService puts every question to one service: is the installed leaf served
// under the full verification, is a client without certificate refused and our own
// server certificate as client, does a client certificate of this host work, does
// the service still run.
func checkService(ctx context.Context, p *plan, s served, files []beneath.File) []Finding {
	if s.general() {
		return checkGeneral(ctx, p, s, files)
	}
	name := p.find(s.profile.Name).item.Name
	if s.profile.RootOnly {
		return []Finding{{Certificate: name, Check: checkAlive, Detail: s.controller.Name(), Err: s.controller.Alive(ctx)}}
	}
	own, err := p.keyPair(ctx, files, name)
	if err == nil && own == nil {
		err = ErrNotInstalled
	}
	if err != nil {
		return []Finding{{Certificate: name, Check: checkServed, Err: err}}
	}
	ca, _ := fileset.Find(files, keylime.BundleFile)
	target := probe.Target{Address: s.address, Leaf: own.Leaf, Bundle: ca.Content, Apart: fileset.ApartFromClients(files, own.Leaf)}
	findings := []Finding{
		{Certificate: name, Check: checkServed, Detail: probe.Serial(own.Leaf), Err: probe.Served(ctx, target)},
		{Certificate: name, Check: checkNobody, Err: refusesNobody(ctx, s, target)},
		{Certificate: name, Check: checkOwn, Err: probe.Refuses(ctx, target, *own)},
	}
	client, err := clientOf(ctx, p, files)
	if client != nil || err != nil {
		if err == nil {
			err = request(ctx, s, target, client)
		}
		findings = append(findings, Finding{Certificate: name, Check: checkClient, Err: err})
	}
	return append(findings, Finding{Certificate: name, Check: checkAlive, Detail: s.controller.Name(), Err: s.controller.Alive(ctx)})
}

// refusesNobody asks for what is not for everybody: of an agent that is anything.
func refusesNobody(ctx context.Context, s served, target probe.Target) error {
	if s.profile.Name == keylime.Agent {
		return probe.Demands(ctx, target)
	}
	return probe.Closed(ctx, target)
}

func request(ctx context.Context, s served, target probe.Target, client *tls.Certificate) error {
	if s.profile.Name == keylime.Agent {
		return probe.Agent(ctx, target, client)
	}
	return probe.Server(ctx, target, client)
}
