// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// items is the set to install: what was issued, and every other configured
// certificate without bytes, to be taken over from the set before.
func (a *Agent) items(orders []*order) ([]install.Item, error) {
	issued := map[string]*order{}
	for _, o := range orders {
		issued[o.cert.Name] = o
	}
	items := make([]install.Item, 0, len(a.config.Certificates))
	for i := range a.config.Certificates {
		c := &a.config.Certificates[i]
		item := emptyItem(c)
		if o := issued[c.Name]; o != nil {
			key, err := o.key.PEM()
			if err != nil {
				return nil, at(StepKey, c.Name, err)
			}
			item.Chain, item.Key, item.CA, item.Sealed = o.issued.ChainPEM, key.Reveal(), o.issued.CAPEM, o.sealed
		}
		items = append(items, item)
	}
	return items, nil
}

func (a *Agent) emptyItems() []install.Item {
	items := make([]install.Item, len(a.config.Certificates))
	for i := range a.config.Certificates {
		items[i] = emptyItem(&a.config.Certificates[i])
	}
	return items
}

func emptyItem(c *config.Certificate) install.Item {
	return install.Item{
		Name: c.Name, Profile: c.Profile, Agents: c.Agents, AgentVersion: c.AgentVersion,
		Service: install.Service(c.Service),
	}
}

func names(orders []*order) []string {
	list := make([]string, len(orders))
	for i, o := range orders {
		list[i] = o.cert.Name
	}
	return list
}
