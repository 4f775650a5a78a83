// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/service"
)

// ErrMissingUser means that the user who must own a key does not exist.
var ErrMissingUser = errors.New("missing service user")

// keylimeUser is whom Keylime's own units and packages run its services as.
const keylimeUser = "keylime"

// member is an item with all that was looked up for it.
type member struct {
	item    Item
	profile keylime.Profile
	fresh   *keypair.Pair // nil: carried over
	owner   account.Account
}

// served is a service of this host that reads certificates of the set.
type served struct {
	profile    keylime.Profile
	controller service.Controller
	address    string
	action     string         // of profile General, else ""
	how        service.Reload // where it is reloaded
	ran        bool           // before Reload
	stays      bool           // it did not run, and is not ours to start
}

// plan is everything that had to be known before the first byte is written.
type plan struct {
	members  []member
	services []served // in the order in which they restart
	dropIns  []keylime.DropIn
	sign     SignFunc // with keys in the TPM
}

func (p *plan) close() {
	for _, s := range p.services {
		s.controller.Close()
	}
}

func (p *plan) items() (items []Item) {
	for _, m := range p.members {
		items = append(items, m.item)
	}
	return items
}

func (p *plan) find(profile string) *member {
	at := slices.IndexFunc(p.members, func(m member) bool { return m.profile.Name == profile })
	if at < 0 {
		return nil
	}
	return &p.members[at]
}

// makePlan checks items and looks up what they need. It writes nothing.
func (i *Installer) makePlan(ctx context.Context, items []Item) (*plan, error) {
	members, err := judge(items, time.Now())
	if err == nil {
		err = judgeGeneral(members, i.set())
	}
	if err != nil {
		return nil, err
	}
	p := &plan{members: members, sign: i.Sign}
	steps := []func(context.Context) error{
		func(context.Context) error { return i.checkMainFiles(p) },
		func(ctx context.Context) error { return i.findServices(ctx, p) },
		func(context.Context) error { return i.findOwners(p) },
		func(context.Context) error { return i.planDropIns(p) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// judge finds each item's profile and judges what is new.
func judge(items []Item, now time.Time) ([]member, error) {
	var members []member
	known := keypair.Authorities{}
	for _, item := range items {
		m, err := judgeOne(item, known, now)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", item.Name, err)
		}
		for _, other := range members {
			if other.item.Name == item.Name || other.profile.Name == item.Profile {
				return nil, fmt.Errorf("certificates %s and %s: same name or same profile", other.item.Name, item.Name)
			}
		}
		members = append(members, m)
	}
	has := func(profile string) bool {
		return slices.ContainsFunc(members, func(m member) bool { return m.profile.Name == profile })
	}
	if has(keylime.VerifierClient) && !has(keylime.Verifier) {
		return nil, fmt.Errorf("profile %s needs a certificate with profile %s beside it", keylime.VerifierClient, keylime.Verifier)
	}
	return members, apartFromClients(members)
}

func judgeOne(item Item, known keypair.Authorities, now time.Time) (member, error) {
	profile, found := profileOf(item)
	if !found {
		return member{}, fmt.Errorf("unknown profile %q", item.Profile)
	}
	if !fileset.IsName(item.Name) || item.Name+".crt" == keylime.BundleFile || item.Name+".crt" == keylime.ClientsBundleFile || item.Name+".crt" == keylime.RootFile {
		return member{}, errors.New("name is not usable as a file name")
	}
	m := member{item: item, profile: profile}
	if profile.RootOnly {
		return m, judgeRoot(item)
	}
	if item.carried() {
		return m, nil
	}
	var err error
	m.fresh, err = judgeItem(item, profile, known, now)
	return m, err
}

func (i *Installer) checkMainFiles(p *plan) error {
	for _, m := range p.members {
		if m.item.general() {
			continue
		}
		if err := m.profile.CheckMainFile(i.root()); err != nil {
			return err
		}
	}
	return nil
}

// findServices looks up each service once, in the table's order.
func (i *Installer) findServices(ctx context.Context, p *plan) error {
	for _, profile := range profilesOf(p.items()) {
		m := p.find(profile.Name)
		if m == nil || profile.Service != profile.Name {
			continue
		}
		found, err := i.findService(ctx, m.item, profile)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
		p.services = append(p.services, found)
	}
	return nil
}

func (i *Installer) findService(ctx context.Context, item Item, profile keylime.Profile) (served, error) {
	if item.general() {
		return i.findGeneral(ctx, item, profile)
	}
	settings, err := profile.Load(i.root())
	if err != nil {
		return served{}, err
	}
	address := item.Service.Probe
	if address == "" && !profile.RootOnly {
		ip, port, err := profile.Endpoint(settings)
		if err != nil {
			return served{}, err
		}
		address = probe.Address(ip, port)
	}
	spec := service.Spec{
		Root: i.root(), Unit: item.Service.Unit, Units: profile.Units, Program: profile.Program,
		Start: item.Service.Start, User: item.Service.User, Log: item.Service.Log,
		PIDFile: item.Service.PIDFile, Port: probe.Port(address), Drops: profile.RunsAs,
	}
	switch {
	case !profile.RunsAs:
		spec.Default = keylimeUser
	case spec.User == "": // it starts as root and becomes run_as itself: who runs it now is no guide
		spec.User = "root"
	}
	controller, err := service.Find(ctx, spec)
	return served{profile: profile, controller: controller, address: address}, explainUser(err)
}

// explainUser says of an unknown user what is missing and how to say otherwise.
func explainUser(err error) error {
	var unknown account.UnknownError
	if !errors.As(err, &unknown) {
		return err
	}
	return remedy.Errorf("create it (useradd --system "+unknown.Name+"), or name another: [certificate.service] user = …", "%w: %w", ErrMissingUser, err)
}

// findOwners gives each member the user that its key must belong to.
func (i *Installer) findOwners(p *plan) error {
	for at := range p.members {
		m := &p.members[at]
		var err error
		if m.owner, err = i.ownerOf(p, *m); err != nil {
			return fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
	}
	return nil
}

func (i *Installer) ownerOf(p *plan, m member) (account.Account, error) {
	switch {
	case m.item.general():
		return i.ownerOfFiles(p, m.item)
	case m.profile.Service == "":
		return i.ownerOfCommand(m.item)
	}
	return i.ownerOfService(p, m.profile.Service)
}

func (i *Installer) ownerOfService(p *plan, name string) (account.Account, error) {
	at := slices.IndexFunc(p.services, func(s served) bool { return s.profile.Name == name })
	s := p.services[at]
	owner := s.controller.Account()
	if owner.UID != 0 || !s.profile.RunsAs {
		return owner, nil
	}
	settings, err := s.profile.Load(i.root())
	if err != nil {
		return owner, err
	}
	runAs := settings.Get("run_as", "keylime:tss")
	if runAs == "" {
		return owner, nil
	}
	owner, err = i.accounts().Find(runAs)
	return owner, explainUser(err)
}

// ownerOfCommand is for the tenant, which people run: the configured user, else
// keylime, else root.
func (i *Installer) ownerOfCommand(item Item) (account.Account, error) {
	if item.Service.User != "" {
		owner, err := i.accounts().Find(item.Service.User)
		return owner, explainUser(err)
	}
	owner, known, err := i.keylimeAccount()
	if err == nil && !known {
		owner = i.accounts().ByUID(0, 0)
	}
	return owner, err
}

// keylimeAccount is that of [keylimeUser], which need not be there.
func (i *Installer) keylimeAccount() (a account.Account, known bool, err error) {
	a, err = i.accounts().Find(keylimeUser)
	var unknown account.UnknownError
	if errors.As(err, &unknown) {
		return a, false, nil
	}
	return a, err == nil, err
}

// planDropIns makes the drop-ins, refuses what would override them, and tells of
// what else people may be wrong about.
func (i *Installer) planDropIns(p *plan) error {
	var uses []keylime.Use
	for _, m := range p.members {
		if m.item.general() {
			continue
		}
		uses = append(uses, keylime.Use{
			Profile: m.profile, Mode: m.item.Mode, Certificate: m.item.Name, UID: m.owner.UID, GID: m.owner.GID, Groups: m.owner.Groups,
		})
	}
	if err := keylime.CheckModes(uses); err != nil {
		return err
	}
	p.dropIns = keylime.DropIns(uses)
	for _, drop := range p.dropIns {
		if err := keylime.Stopping(i.remarked(drop.Examine(i.root(), p.environmentOf(drop)))); err != nil {
			return err
		}
	}
	return nil
}

// remarked logs the findings that do not stop.
func (i *Installer) remarked(found []keylime.Finding) []keylime.Finding {
	for _, f := range found {
		if !f.Stops {
			i.log().Warn("Keylime's configuration", "error", f.Err, "hint", remedy.Of(f.Err))
		}
	}
	return found
}

// judgeItem parses an item and checks what must hold before it may be written:
// the key fits, the usage is exactly the profile's, the time is within the
// validity, the chain reaches a root of the item's CA.
func judgeItem(item Item, profile keylime.Profile, known keypair.Authorities, now time.Time) (*keypair.Pair, error) {
	parsed, err := keypair.Parse(item.Chain, item.Key)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(parsed.Leaf().ExtKeyUsage, []x509.ExtKeyUsage{profile.Usage}) || len(parsed.Leaf().UnknownExtKeyUsage) > 0 {
		return nil, fmt.Errorf("extended key usages of %s must be exactly the one it needs: Keylime takes every client certificate for an administrator", profile.Name)
	}
	ca, err := keypair.ParseCertificates(item.CA)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	if err := known.Vouch(parsed, ca, profile.Usage, now); err != nil {
		return nil, err
	}
	if profile.Usage == x509.ExtKeyUsageServerAuth {
		return parsed, probe.Target{Leaf: parsed.Leaf()}.HasName()
	}
	return parsed, nil
}
