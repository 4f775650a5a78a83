// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"slices"

	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/record"
)

// A service has in memory what it read when it started. Nothing on the disk says
// what that was, but the times do: the set's certificate was written at some time,
// and a service that is older than that has another one, which ends earlier. The
// verifier's client certificate ends so without anybody looking at a file.

// Behind names the certificates of services that run with some from before the current
// set: they were not restarted since, or came up in between. It changes nothing and
// takes no lock. Items need neither chain nor key.
func (i *Installer) Behind(ctx context.Context, items []Item) ([]string, error) {
	p, err := i.makePlan(ctx, withoutBytes(items))
	if err != nil {
		return nil, err
	}
	defer p.close()
	s, number, err := i.openCurrent()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var names []string
	for _, one := range p.services {
		if !p.behind(ctx, s, one, number) {
			continue
		}
		i.log().Warn("service runs with older certificates than are installed", "service", one.controller.Name())
		for _, m := range p.members {
			if m.profile.Service == one.profile.Name {
				names = append(names, m.item.Name)
			}
		}
	}
	return names, nil
}

// withBehind adds to the services that restart those that are behind: what they have
// in memory may end before the next renewal that would restart them.
func (c *Change) withBehind(ctx context.Context, restart []served) []served {
	if c.was == record.None || c.was == c.found.ByHand() {
		return restart // what people had set up is read as they had set it up
	}
	var all []served
	for _, s := range c.plan.services {
		known := slices.ContainsFunc(restart, func(r served) bool { return r.profile.Name == s.profile.Name })
		if known || c.plan.behind(ctx, *c.store, s, c.was) {
			all = append(all, s)
		}
	}
	return all
}

// behind reports that a service runs since before one of its certificates, as a
// generation has it, was written. Of one that does not run, or whose start is not
// known, nothing is in memory that could be told; one that reads its files again may
// have done so since.
func (p *plan) behind(ctx context.Context, s generation.Store, of served, number int) bool {
	since, err := of.controller.Since(ctx)
	if err != nil || of.action == ActReload || of.action == ActNone {
		return false
	}
	for _, m := range p.members {
		if m.profile.Service != of.profile.Name {
			continue
		}
		written, err := s.Written(number, m.item.Name)
		if err == nil && since.Before(written) {
			return true
		}
	}
	return false
}
