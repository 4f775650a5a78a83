// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
)

// ErrNothingBetter means that the set before this one must not come back: it
// has expired, or its pairs do not match. The new set stays.
var ErrNothingBetter = errors.New("the generation before cannot serve either; the new one is kept")

// Reload makes the services read the new set, one after the other, each back
// before the next one stops. Only a restart does it: no Keylime service reads a
// certificate twice.
func (c *Change) Reload(ctx context.Context) error {
	for _, s := range c.restart {
		c.touched = append(c.touched, s)
		began := time.Now()
		if err := c.installer.bring(ctx, s, s.controller.Restart); err != nil {
			return err
		}
		c.installer.log().Info("service restarted", "service", s.controller.Name(), "address", s.address, "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// bring runs act and waits until the service listens again.
func (i *Installer) bring(ctx context.Context, s served, act func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, i.outage())
	defer cancel()
	if err := act(ctx); err != nil {
		return err
	}
	return probe.Ready(ctx, s.address, s.controller.Alive)
}

// Probe asks every restarted service whether it works with what is installed.
// It returns the first thing that is wrong with each.
func (c *Change) Probe(ctx context.Context) error {
	files, err := c.store.read(c.number)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range c.restart {
		for _, finding := range checkService(ctx, c.plan, s, files) {
			if finding.Err != nil {
				errs = append(errs, fmt.Errorf("certificate %s: %s: %w", finding.Certificate, finding.Check, finding.Err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// RollBack makes the set before this one current again, puts the drop-ins back
// byte for byte and brings back the services that Reload had touched. Where there
// was no set before, link and drop-ins are removed. It goes on when ctx has
// ended, within the time that Reload has for each service.
func (c *Change) RollBack(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	before, err := c.judgeBefore(time.Now())
	if err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	if err := c.undo(); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	c.installer.log().Warn("rolled back", "generation", c.previous, "from", c.number)
	var errs []error
	for _, s := range c.touched {
		if err := c.restore(ctx, s, before); err != nil {
			errs = append(errs, fmt.Errorf("roll back: %w", err))
		}
	}
	return errors.Join(errs...)
}

// judgeBefore returns the set to go back to, nil when there was none. A server
// certificate of a touched service that is in it must be one that can serve; in
// a set of ours, whose bundle is whole, it must reach a root too.
func (c *Change) judgeBefore(now time.Time) ([]beneath.File, error) {
	if c.previous == none {
		return nil, nil
	}
	files, err := c.store.read(c.previous)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNothingBetter, err)
	}
	for _, s := range c.touched {
		m := c.plan.find(s.profile.Name)
		old, found, err := pairIn(files, m.item.Name)
		if err == nil && found && now.After(old.leaf().NotAfter) {
			err = fmt.Errorf("its certificate %s expired %s", m.item.Name, old.leaf().NotAfter.Format(time.RFC3339))
		}
		if err == nil && found && c.previous > 0 {
			err = vouchedIn(files, old, s.profile.Usage, now)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNothingBetter, err)
		}
	}
	return files, nil
}

// vouchedIn refuses a pair that does not reach a root of its own set's bundle.
func vouchedIn(files []beneath.File, p *pair, usage x509.ExtKeyUsage, now time.Time) error {
	own, _ := file(files, keylime.BundleFile)
	ca, err := parseCertificates(own.Content)
	if err != nil {
		return err
	}
	return authorities{}.vouch(p, ca, usage, now)
}

// pairIn reads a pair out of a set.
func pairIn(files []beneath.File, name string) (*pair, bool, error) {
	certificate, hasCert := file(files, name+".crt")
	key, hasKey := file(files, name+".key")
	if !hasCert || !hasKey {
		return nil, false, nil
	}
	found, err := parsePair(certificate.Content, key.Content)
	if err != nil {
		return nil, false, fmt.Errorf("certificate %s: %w", name, err)
	}
	return found, true, nil
}

// restore brings one service back and, where a set of ours is current again,
// waits until it listens and serves it.
func (c *Change) restore(ctx context.Context, s served, before []beneath.File) error {
	if before == nil || c.previous == 0 {
		// What people had set up need not listen where ours does.
		ctx, cancel := context.WithTimeout(ctx, c.installer.outage())
		defer cancel()
		return s.controller.Restore(ctx)
	}
	if err := c.installer.bring(ctx, s, s.controller.Restore); err != nil {
		return err
	}
	own, err := keyPair(before, c.plan.find(s.profile.Name).item.Name)
	if own == nil || err != nil {
		return err // it was not in that set, so nothing says what it serves
	}
	ca, _ := file(before, keylime.BundleFile)
	return probe.Served(ctx, probe.Target{Address: s.address, Leaf: own.Leaf, Bundle: ca.Content})
}

// clientOf returns the client certificate that this host holds, the tenant's
// before the verifier's; nil when it holds none.
func clientOf(p *plan, files []beneath.File) (*tls.Certificate, error) {
	for _, profile := range []string{keylime.Tenant, keylime.VerifierClient} {
		if m := p.find(profile); m != nil {
			if certificate, err := keyPair(files, m.item.Name); certificate != nil || err != nil {
				return certificate, err
			}
		}
	}
	return nil, nil
}

// keyPair returns a pair of a set for a handshake, nil when it is not there.
func keyPair(files []beneath.File, name string) (*tls.Certificate, error) {
	found, there, err := pairIn(files, name)
	if !there || err != nil {
		return nil, err
	}
	certificate := &tls.Certificate{PrivateKey: found.signer, Leaf: found.leaf()}
	for _, cert := range found.chain {
		certificate.Certificate = append(certificate.Certificate, cert.Raw)
	}
	return certificate, nil
}
