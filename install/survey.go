// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/keylime"
)

// A Survey is what an installation would find on this host, with everything that
// stands in its way, and not only the first.
type Survey struct {
	Services []Surveyed
	Settings []keylime.Finding // of Keylime's configuration
	Errs     []error           // what keeps the rest from being looked at
}

// Surveyed is one service that reads certificates.
type Surveyed struct {
	Certificate string // name of the one it serves
	Profile     string
	Service     string // unit or command; "" where there is none
	User        string // whom it runs as, or is started as
	Address     string // where it is asked; "" nowhere
	Missing     error  // it was not found; the rest is empty
	Startable   error  // it would not come back if it were stopped now
	Alive       error  // it does not run
	Version     error  // of an agent of Keylime: too old for an EC key, or not known
}

// Survey looks at what is configured, as far as it can be looked at. It changes
// nothing and takes no lock. Items need neither chain nor key.
func (i *Installer) Survey(ctx context.Context, items []Item) Survey {
	members, err := judge(withoutBytes(items), time.Now())
	if err != nil {
		return Survey{Errs: []error{err}}
	}
	p := &plan{members: members, sign: i.Sign}
	defer p.close()
	var s Survey
	for _, profile := range profilesOf(p.items()) {
		if m := p.find(profile.Name); m != nil && profile.Service == profile.Name {
			s.Services = append(s.Services, i.surveyService(ctx, p, *m, profile))
		}
	}
	s.Settings, s.Errs = i.surveySettings(p)
	return s
}

// surveyService looks one service up and, where it is there, keeps it in the plan.
func (i *Installer) surveyService(ctx context.Context, p *plan, m member, profile keylime.Profile) Surveyed {
	found, err := i.findService(ctx, m.item, profile)
	if err != nil {
		return Surveyed{Certificate: m.item.Name, Profile: profile.Name, Missing: err}
	}
	p.services = append(p.services, found)
	paths := []string{i.set().Folder, path.Join(i.stateDir(), i.set().Name)}
	surveyed := Surveyed{
		Certificate: m.item.Name, Profile: profile.Name, Service: found.controller.Name(), User: found.controller.Account().Name, Address: found.address,
		Startable: found.controller.Startable(ctx, paths), Alive: found.controller.Alive(ctx),
	}
	if profile.Name == keylime.Agent {
		surveyed.Version = i.learnVersion(ctx, found, m.item.AgentVersion)
	}
	return surveyed
}

// surveySettings looks at what decides the settings of each component. Where the
// service was not found its user is Keylime's usual one.
func (i *Installer) surveySettings(p *plan) (found []keylime.Finding, errs []error) {
	var uses []keylime.Use
	for _, m := range p.members {
		if m.item.general() {
			continue
		}
		owner, err := i.surveyOwner(p, m)
		if err != nil {
			errs = append(errs, fmt.Errorf("certificate %s: %w", m.item.Name, err))
			continue
		}
		uses = append(uses, keylime.Use{
			Profile: m.profile, Mode: m.item.Mode, Certificate: m.item.Name, UID: owner.UID, GID: owner.GID, Groups: owner.Groups,
		})
	}
	for _, drop := range keylime.DropIns(uses) {
		found = append(found, drop.Examine(i.root(), p.environmentOf(drop))...)
	}
	return found, errs
}

// surveyOwner is ownerOf where the service may not have been found.
func (i *Installer) surveyOwner(p *plan, m member) (account.Account, error) {
	there := slices.ContainsFunc(p.services, func(s served) bool { return s.profile.Name == m.profile.Service })
	if m.profile.Service == "" || there {
		return i.ownerOf(p, m)
	}
	return i.ownerOfCommand(Item{})
}

// environmentOf is what the service of a component gets as environment.
func (p *plan) environmentOf(drop keylime.DropIn) []string {
	var environment []string
	for _, s := range p.services {
		if s.profile.Component == drop.Profile.Component {
			environment = s.controller.Environment()
		}
	}
	return environment
}
