// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/service"
)

// General is the profile of a program that is none of Keylime's. An item of it is a
// set of its own: see [Files] and [Service].
const General = "general"

// Actions, by which a program of profile General gets to a new set.
const (
	ActRestart = "restart"
	ActReload  = "reload"
	ActNone    = "none" // it watches its files, or reads them each time
)

// settle is how long a program may take from being told to serving what is new.
const settle = 15 * time.Second

// profileOf is what has to be known of an item's use.
func profileOf(item Item) (keylime.Profile, bool) {
	if item.Profile != General {
		return keylime.Find(item.Profile)
	}
	profile := keylime.Profile{Name: General, Usage: item.Usage}
	if s := item.Service; s.Action == ActRestart || s.Action == ActReload || s.Probe != "" {
		profile.Service, profile.Program = General, s.Program
	}
	return profile, item.Usage == x509.ExtKeyUsageServerAuth || item.Usage == x509.ExtKeyUsageClientAuth
}

// profilesOf are all profiles that items can have, in the order of restarts.
func profilesOf(items []Item) []keylime.Profile {
	profiles := keylime.Profiles()
	for _, item := range items {
		if general, known := profileOf(item); known && item.general() {
			profiles = append(profiles, general)
		}
	}
	return profiles
}

func (i Item) general() bool { return i.Profile == General }

// judgeGeneral refuses a general item beside others: what fails goes back whole.
func judgeGeneral(members []member, set Set) error {
	at := slices.IndexFunc(members, func(m member) bool { return m.item.general() })
	if at < 0 {
		return nil
	}
	if len(members) > 1 || set.Name != members[at].item.Name {
		return fmt.Errorf("certificate %s: profile %s is a set of its own, of that name", members[at].item.Name, General)
	}
	return nil
}

// findGeneral finds the program that reads a general set.
func (i *Installer) findGeneral(ctx context.Context, item Item, profile keylime.Profile) (served, error) {
	s := item.Service
	found := served{profile: profile, address: s.Probe, action: s.Action, how: service.Reload{Command: s.Reload, Signal: s.Signal}}
	if s.Action == ActNone || s.Action == "" {
		found.action, found.controller = ActNone, service.Untouched{What: "what reads " + i.set().Folder}
		return found, nil
	}
	var err error
	found.controller, err = service.Find(ctx, service.Spec{
		Root: i.root(), Unit: s.Unit, Program: s.Program, Start: s.Start, User: s.User, Log: s.Log,
		PIDFile: s.PIDFile, Port: probe.Port(s.Probe), Reload: found.how,
	})
	return found, explainUser(err)
}

// ownerOfFiles is who holds the key of a general set: the configured owner, else whom
// the program is started as, else root.
func (i *Installer) ownerOfFiles(p *plan, item Item) (account.Account, error) {
	if item.Files.Owner != "" {
		owner, err := i.accounts().Find(item.Files.Owner)
		return owner, explainUser(err)
	}
	for _, s := range p.services {
		if s.action != ActNone {
			return s.controller.Account(), nil
		}
	}
	return i.accounts().ByUID(os.Geteuid(), os.Getegid()), nil
}

// keyMode is the mode of what holds the key.
func (m member) keyMode() uint32 {
	if m.item.Files.KeyMode != 0 {
		return m.item.Files.KeyMode
	}
	return fileset.KeyMode
}

// reader is whom a member's files are read as.
func (m member) reader(s served) account.Account {
	if m.item.general() && s.action != ActNone {
		return s.controller.Account()
	}
	return m.owner
}

// renew has the service read the new set.
func (s served) renew(ctx context.Context) error {
	switch s.action {
	case ActReload:
		return s.controller.Reload(ctx, s.how)
	case ActNone:
		return nil
	}
	return s.controller.Restart(ctx)
}

// back has it read the set before. What did not run before does not run again.
func (s served) back(ctx context.Context) error {
	switch {
	case s.action == ActNone:
		return nil
	case s.action == ActReload && s.ran:
		return s.controller.Reload(ctx, s.how)
	}
	return s.controller.Restore(ctx)
}

// idle reports that a program that others start does not run: it will read what is
// there when it does.
func (s served) idle(ctx context.Context) bool {
	if _, told := s.controller.(*service.Told); !told && s.action != ActNone {
		return false
	}
	if s.address == "" {
		return s.controller.Alive(ctx) != nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return probe.Ready(ctx, s.address, nil) != nil
}

// awaitNew is awaitLeaf of the new set.
func (c *Change) awaitNew(ctx context.Context, s served) error {
	if !s.general() || !c.ours(c.number) {
		return nil
	}
	files, err := c.store.Read(c.number)
	if err != nil {
		return err
	}
	return c.awaitLeaf(ctx, s, files)
}

// awaitLeaf waits until a program that goes on while it reads again serves what a set
// has: that it was told is not that it has done it.
func (c *Change) awaitLeaf(ctx context.Context, s served, files []beneath.File) error {
	if s.address == "" {
		return nil
	}
	own, err := c.plan.keyPair(ctx, files, c.plan.find(s.profile.Name).item.Name)
	if err != nil || own == nil {
		return err
	}
	ca, _ := fileset.Find(files, keylime.BundleFile)
	target := probe.Target{Address: s.address, Leaf: own.Leaf, Bundle: ca.Content}
	ctx, cancel := context.WithTimeout(ctx, min(settle, c.installer.outage()))
	defer cancel()
	return probe.AwaitServed(ctx, target)
}

func (s served) general() bool { return s.profile.Name == General }

// checkGeneral puts the questions to a general program: is the installed leaf served
// under the full verification, does it run.
func checkGeneral(ctx context.Context, p *plan, s served, files []beneath.File) []Finding {
	name := p.find(s.profile.Name).item.Name
	var findings []Finding
	if s.address != "" {
		served := Finding{Certificate: name, Check: checkServed}
		own, err := p.keyPair(ctx, files, name)
		if err == nil && own == nil {
			err = ErrNotInstalled
		}
		if err == nil {
			ca, _ := fileset.Find(files, keylime.BundleFile)
			served.Detail = probe.Serial(own.Leaf)
			err = probe.Served(ctx, probe.Target{Address: s.address, Leaf: own.Leaf, Bundle: ca.Content})
		}
		served.Err = err
		findings = append(findings, served)
	}
	return append(findings, Finding{Certificate: name, Check: checkAlive, Detail: s.controller.Name(), Err: s.controller.Alive(ctx)})
}

// putBackGeneral has the program read the folder that people had. Where there was
// none, its configuration names files that are gone: it is left as it runs.
func (c *Change) putBackGeneral(ctx context.Context, s served, done *Uninstalled) error {
	switch {
	case s.action == ActNone:
		return nil
	case c.found.ByHand() == record.None:
		done.warn("%s is left as it runs: before it starts again, its configuration must not name %s", s.controller.Name(), c.set().Folder)
		return nil
	}
	done.Restarted = append(done.Restarted, s.controller.Name())
	if s.idle(ctx) {
		return nil
	}
	return s.renew(ctx)
}
