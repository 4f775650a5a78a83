// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
)

// Served asks every service that listens whether it serves what is installed, with
// one handshake each and all at the same time: cheap enough to be asked every few
// minutes, unlike Verify. It changes nothing, takes no lock and logs nothing. Who
// does not listen, or is started by others and does not run, is not asked.
func (i *Installer) Served(ctx context.Context, items []Item) ([]Finding, error) {
	quiet := *i
	quiet.Log = nil
	p, files, err := quiet.survey(ctx, items)
	if errors.Is(err, ErrNotInstalled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer p.close()
	findings := make([]Finding, len(p.services))
	var group errgroup.Group
	for at, s := range p.services {
		group.Go(func() error {
			findings[at] = p.served(ctx, s, files)
			return nil
		})
	}
	_ = group.Wait() // what goes wrong is a finding
	var asked []Finding
	for _, f := range findings {
		if f.Check != "" {
			asked = append(asked, f)
		}
	}
	return asked, nil
}

// served asks one service; the zero finding is of one that is not to be asked.
func (p *plan) served(ctx context.Context, s served, files []beneath.File) Finding {
	if s.profile.RootOnly || s.address == "" || s.general() && s.idle(ctx) {
		return Finding{}
	}
	name := p.find(s.profile.Name).item.Name
	text, there := fileset.Find(files, name+".crt")
	if !there {
		return Finding{}
	}
	f := Finding{Certificate: name, Check: checkServed}
	chain, err := keypair.ParseCertificates(text.Content)
	if err == nil && len(chain) == 0 {
		err = errors.New("no certificate in it")
	}
	if err == nil {
		ca, _ := fileset.Find(files, keylime.BundleFile)
		f.Detail = probe.Serial(chain[0])
		err = s.owned(ctx, probe.Served(ctx, probe.Target{Address: s.address, Leaf: chain[0], Bundle: ca.Content}))
	}
	f.Err = err
	return f
}

// owned says of another certificate than ours whether it is the service that serves it:
// where that does not run, everybody can listen.
func (s served) owned(ctx context.Context, found error) error {
	var other *probe.WrongLeafError
	if !errors.As(found, &other) {
		return found
	}
	if stopped := s.controller.Alive(ctx); stopped != nil {
		return fmt.Errorf("%w, and something else serves at %s: %v", stopped, s.address, found) //nolint:errorlint // what is wrong is that it does not run
	}
	return found
}
