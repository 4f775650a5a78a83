// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"slices"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
)

// A set is certificates that change together, and who installs them: all of Keylime's
// are one, every other is one by itself.
type set struct {
	name    string
	install *install.Installer
	certs   []*config.Certificate
}

// InUse is which generation of each set is in use.
type InUse struct {
	Generation  int            `json:"generation"`            // of Keylime's set, else of the first
	Generations map[string]int `json:"generations,omitempty"` // of the others, by certificate
}

func (u *InUse) uses(name string, generation int, first bool) {
	if first {
		u.Generation = generation
		return
	}
	if u.Generations == nil {
		u.Generations = map[string]int{}
	}
	u.Generations[name] = generation
}

// sets are those of the configuration, Keylime's first.
func (a *Agent) sets() []set {
	keylime := a.keylimeSet()
	var all []set
	for i := range a.config.Certificates {
		c := &a.config.Certificates[i]
		if c.Profile != config.General {
			keylime.certs = append(keylime.certs, c)
			continue
		}
		own := a.installerOf(install.Set{Name: c.Name, Folder: c.Files.Folder})
		all = append(all, set{name: c.Name, install: own, certs: []*config.Certificate{c}})
	}
	if len(keylime.certs) > 0 || len(all) == 0 {
		all = append([]set{keylime}, all...)
	}
	return all
}

func (a *Agent) keylimeSet() set { return set{name: install.KeylimeSet.Name, install: a.install} }

// orphans are the installed sets that no certificate of the configuration is in.
func (a *Agent) orphans() ([]set, error) {
	all, err := a.install.Sets()
	var left []set
	for _, one := range all {
		switch configured := slices.ContainsFunc(a.sets(), func(s set) bool { return s.name == one.Name }); {
		case configured:
		case one.Name == install.KeylimeSet.Name:
			left = append(left, a.keylimeSet())
		default:
			left = append(left, set{name: one.Name, install: a.installerOf(one)})
		}
	}
	return left, err
}

// orphaned says of each set that the configuration names no more that it runs out.
func (a *Agent) orphaned() []string {
	sets, err := a.orphans()
	var remarks []string
	for _, s := range sets {
		remarks = append(remarks, fmt.Sprintf("set %s is installed at %s and no [[certificate]] is in it: it is not renewed (name it again, or omen-agent uninstall)", s.name, s.folder()))
	}
	if err != nil {
		remarks = append(remarks, fmt.Sprintf("what is installed cannot be said: %v", err))
	}
	return remarks
}

func (a *Agent) installerOf(one install.Set) *install.Installer {
	own := *a.install
	own.Set, own.Trust = one, install.Trust{}
	return &own
}

// general reports that a set is one certificate of another program than Keylime's.
func (s set) general() bool { return s.name != install.KeylimeSet.Name }

// wanted reports whether a renewal has something to install in a set: what was issued,
// or a root that comes without being asked for.
func (s set) wanted(orders []*order) bool {
	return slices.ContainsFunc(s.certs, func(c *config.Certificate) bool {
		return c.Usage() == config.Root || slices.ContainsFunc(orders, func(o *order) bool { return o.cert == c })
	})
}

func (s set) names() []string {
	var names []string
	for _, c := range s.certs {
		names = append(names, c.Name)
	}
	return names
}

// setOf is the set to go back in: that of a certificate, or the only one.
func (a *Agent) setOf(certificate string) (set, error) {
	sets := a.sets()
	if certificate == "" && (len(sets) == 1 || !sets[0].general()) {
		return sets[0], nil
	}
	for _, s := range sets {
		if slices.Contains(s.names(), certificate) {
			return s, nil
		}
	}
	err := fmt.Errorf("no certificate %q", certificate)
	if certificate == "" {
		err = errors.New("there are several sets")
	}
	return set{}, &config.Error{File: "--certificate", Err: err, Hint: "name one of the [[certificate]] tables"}
}

// each does something with every set that is installed. Nothing installed at all is
// install.ErrNotInstalled.
func each(sets []set, do func(set) error) error {
	var errs []error
	missing := 0
	for _, s := range sets {
		err := do(s)
		if errors.Is(err, install.ErrNotInstalled) {
			missing++
			continue
		}
		errs = append(errs, err)
	}
	if missing == len(sets) {
		return install.ErrNotInstalled
	}
	return errors.Join(errs...)
}

// items is a set to install: what was issued, and every other certificate of it
// without bytes, to be taken over from the set before.
func (a *Agent) items(s set, orders []*order) ([]install.Item, error) {
	var items []install.Item
	for _, c := range s.certs {
		item := a.emptyItem(c)
		if n := slices.IndexFunc(orders, func(o *order) bool { return o.cert.Name == c.Name }); n >= 0 {
			o := orders[n]
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

func (a *Agent) emptyItems(s set) []install.Item {
	items := make([]install.Item, len(s.certs))
	for i, c := range s.certs {
		items[i] = a.emptyItem(c)
	}
	return items
}
