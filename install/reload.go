// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/record"
)

// ErrNothingBetter means that the set before this one must not come back: it
// has expired, or its pairs do not match. The new set stays.
var ErrNothingBetter = errors.New("the generation before cannot serve either; the new one is kept")

// Reload makes the services read the new set, one after the other, each back
// before the next one stops. Only a restart does it: no Keylime service reads a
// certificate twice. Before the first one stops, everything is looked at that would
// keep one from starting; then nothing is touched.
func (c *Change) Reload(ctx context.Context) error {
	if c.ours(c.number) {
		if err := c.preflight(ctx); err != nil {
			return err
		}
	}
	for at, s := range c.restart {
		if s.profile.Name == keylime.Agent {
			if err := c.awaitRegistrar(ctx); err != nil {
				return err
			}
		}
		if s.general() {
			s.ran, s.stays = s.controller.Alive(ctx) == nil, s.idle(ctx)
			c.restart[at] = s
		}
		if s.stays {
			c.installer.log().Warn("program does not run; it reads the new set when it does", "service", s.controller.Name(), "address", s.address)
			continue
		}
		c.touched = append(c.touched, s)
		began := time.Now()
		if err := c.bring(ctx, s, func(ctx context.Context) error { return c.renew(ctx, s) }, c.ours(c.number)); err != nil {
			return err
		}
		if err := c.awaitNew(ctx, s); err != nil {
			return err
		}
		c.installer.log().Info("service restarted", "service", s.controller.Name(), "address", s.address, "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// renew has a service read the new set. One that somebody starts just now, as systemd
// does at boot with what waited for us, has read it: to stop it in its first moments
// would cost it another start.
func (c *Change) renew(ctx context.Context, s served) error {
	if c.switched == 0 {
		return s.renew(ctx)
	}
	started, err := s.controller.Started(ctx, c.switched)
	if err != nil || started {
		return err
	}
	return s.renew(ctx)
}

// bring runs act and waits until the service listens again: what people had set up
// need not listen where ours does.
func (c *Change) bring(ctx context.Context, s served, act func(context.Context) error, ours bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.installer.outage())
	defer cancel()
	if err := act(ctx); err != nil || !ours {
		return err
	}
	if s.profile.RootOnly || s.address == "" { // it listens nowhere
		return s.controller.Alive(ctx)
	}
	return probe.Ready(ctx, s.address, s.controller.Alive)
}

// Probe asks every restarted service whether it works with what is installed.
// It returns the first thing that is wrong with each. When nothing is, the set is
// proven: what comes after goes back to it.
func (c *Change) Probe(ctx context.Context) error {
	files, err := c.store.Read(c.number)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range c.restart {
		for _, finding := range c.ask(ctx, s, files) {
			if finding.Err != nil {
				errs = append(errs, fmt.Errorf("certificate %s: %s: %w", finding.Certificate, finding.Check, finding.Err))
				break
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.clearJournal()
}

// ask puts the questions to a service. One whose certificate is not in the set, or
// for which people had set something else up, has to run and no more; one that does
// not run, and is not ours to start, nothing.
func (c *Change) ask(ctx context.Context, s served, files []beneath.File) []Finding {
	name := c.plan.find(s.profile.Name).item.Name
	if s.stays {
		return nil
	}
	if _, there := fileset.Find(files, name+".crt"); there && c.ours(c.number) {
		return checkService(ctx, c.plan, s, files)
	}
	return []Finding{{Certificate: name, Check: checkAlive, Err: s.controller.Alive(ctx)}}
}

// RollBack makes the last proven set current again, puts the configuration back
// byte for byte and brings back the services that Reload had touched. Where there
// was no set before, link and drop-ins are removed. It goes on when ctx has
// ended, within the time that Reload has for each service.
func (c *Change) RollBack(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	before, err := c.judgeBefore(ctx, time.Now())
	if err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	if err := c.goBack(); err != nil {
		return fmt.Errorf("roll back: %w", c.installer.explainDisk(err))
	}
	c.installer.log().Warn("rolled back", "generation", c.previous, "from", c.number)
	var errs []error
	if err := c.setAside(); err != nil {
		errs = append(errs, fmt.Errorf("roll back: %w", c.installer.explainDisk(err)))
	}
	for _, s := range c.touched {
		if err := c.restore(ctx, s, before); err != nil {
			errs = append(errs, fmt.Errorf("roll back: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // the journal stays: these services have to restart
	}
	if c.previous == record.None {
		errs = append(errs, c.restoreFound())
	}
	return errors.Join(append(errs, c.clearJournal())...)
}

// judgeBefore returns the set to go back to, nil when there was none. Every
// certificate of a touched service that is in it must be one that can serve.
func (c *Change) judgeBefore(ctx context.Context, now time.Time) ([]beneath.File, error) {
	if c.journal == nil || c.previous == c.number {
		return nil, fmt.Errorf("%w: none is proven but this one", ErrNothingBetter)
	}
	if c.previous == record.None {
		return nil, nil
	}
	var members []member
	for _, m := range c.plan.members {
		if slices.ContainsFunc(c.touched, func(s served) bool { return s.profile.Name == m.profile.Service }) {
			members = append(members, m)
		}
	}
	files, err := c.judgeSet(ctx, c.previous, members, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNothingBetter, err)
	}
	return files, nil
}

// judgeSet judges the certificates of members in a set that is to be current again
// like a fresh reply, as far as they are in it; modes and owners are put right, and
// sealed keys are put where their services read them. Of what people had set up
// only pairs and dates are judged.
func (c *Change) judgeSet(ctx context.Context, number int, members []member, now time.Time) ([]beneath.File, error) {
	damage, err := c.store.Repair(number)
	if err != nil {
		return nil, err
	}
	files, err := c.store.Read(number)
	if err != nil {
		return nil, err
	}
	_, sealed := c.store.Unseal(ctx, number, files, c.installer.Open)
	if sealed != nil {
		c.installer.log().Warn("sealed keys cannot be given out", "generation", number, "error", sealed)
	}
	if files, err = c.store.Read(number); err != nil {
		return nil, err
	}
	known := keypair.Authorities{}
	for _, m := range members {
		var err error
		if c.ours(number) {
			err = spoilt(damage, m.item.Name)
		}
		if err == nil {
			err = judgeOld(files, m, known, now, c.ours(number))
		}
		if errors.Is(err, ErrNoPlainKey) {
			err = errors.Join(err, sealed)
		}
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", number, err)
		}
	}
	return files, nil
}

// judgeOld judges a pair of an older set.
func judgeOld(files []beneath.File, m member, known keypair.Authorities, now time.Time, ours bool) error {
	old, found, err := fileset.Pair(files, m.item.Name)
	if err != nil || !found {
		return err
	}
	if now.After(old.Leaf().NotAfter) {
		return fmt.Errorf("its certificate %s expired %s", m.item.Name, old.Leaf().NotAfter.Format(time.RFC3339))
	}
	if !ours {
		return nil
	}
	return fileset.Vouch(files, old, m.profile, known, now)
}

// restore brings one service back and, where a set of ours is current again,
// waits until it listens and serves it.
func (c *Change) restore(ctx context.Context, s served, before []beneath.File) error {
	if before == nil || !c.ours(c.previous) {
		// What people had set up need not listen where ours does.
		ctx, cancel := context.WithTimeout(ctx, c.installer.outage())
		defer cancel()
		return s.back(ctx)
	}
	if err := c.bring(ctx, s, s.back, true); err != nil {
		return err
	}
	if s.general() {
		return c.awaitLeaf(ctx, s, before)
	}
	own, err := c.plan.keyPair(ctx, before, c.plan.find(s.profile.Name).item.Name)
	if own == nil || err != nil {
		return err // it was not in that set, so nothing says what it serves
	}
	ca, _ := fileset.Find(before, keylime.BundleFile)
	return probe.Served(ctx, probe.Target{Address: s.address, Leaf: own.Leaf, Bundle: ca.Content})
}

// clientOf returns the client certificate that this host holds, the tenant's
// before the verifier's; nil when it holds none.
func clientOf(ctx context.Context, p *plan, files []beneath.File) (*tls.Certificate, error) {
	for _, profile := range []string{keylime.Tenant, keylime.VerifierClient} {
		if m := p.find(profile); m != nil {
			if certificate, err := p.keyPair(ctx, files, m.item.Name); certificate != nil || err != nil {
				return certificate, err
			}
		}
	}
	return nil, nil
}

// keyPair returns a pair of a set for a handshake, nil when it is not there.
func (p *plan) keyPair(ctx context.Context, files []beneath.File, name string) (*tls.Certificate, error) {
	found, there, err := fileset.Pair(files, name)
	if !there || err != nil {
		return nil, err
	}
	certificate := &tls.Certificate{PrivateKey: found.Signer, Leaf: found.Leaf()}
	for _, cert := range found.Chain {
		certificate.Certificate = append(certificate.Certificate, cert.Raw)
	}
	p.lend(ctx, certificate)
	return certificate, nil
}
