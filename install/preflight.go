// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"funlab.casa/omen/install/account"
	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/service"
)

// ErrUnreadable means that a service would not get at what it must read.
var ErrUnreadable = errors.New("not readable for the service")

// preflight looks for everything that would keep a service from starting, before the
// first one is stopped: a start that fails costs a unit of Keylime's 120 seconds, and
// its verifier gives an agent up after 62. What Reload has not touched stays as it is
// when the files go back.
func (c *Change) preflight(ctx context.Context) error {
	files, err := c.store.Read(c.number)
	if err != nil {
		return err
	}
	for _, s := range c.restart {
		if err := c.canStart(ctx, s, files); err != nil {
			return fmt.Errorf("%s is not restarted: %w", s.controller.Name(), err)
		}
	}
	if c.restarts(keylime.Registrar) {
		return nil // it comes first, and is waited for
	}
	return c.awaitRegistrar(ctx)
}

func (c *Change) restarts(profile string) bool {
	return slices.ContainsFunc(c.restart, func(s served) bool { return s.profile.Name == profile })
}

// canStart reads as the service's own user, through the link and every folder on the
// way, what the service will read, and judges the very bytes.
func (c *Change) canStart(ctx context.Context, s served, files []beneath.File) error {
	if err := s.controller.Startable(ctx, c.paths(s)); err != nil && !s.idle(ctx) {
		return err
	}
	if err := c.readsConfig(s); err != nil {
		return err
	}
	known := keypair.Authorities{}
	for _, m := range c.plan.members {
		if m.profile.Service != s.profile.Name {
			continue
		}
		read, err := c.readBy(m.reader(s), m.reads(files), files)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
		if err := m.serves(read, known, time.Now()); err != nil {
			return fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
	}
	return nil
}

// paths are the folders that a sandbox must not hide.
func (c *Change) paths(s served) []string {
	i := c.installer
	paths := []string{c.set().Folder, path.Join(i.stateDir(), c.set().Name)}
	if !s.general() {
		paths = append(paths, c.configOf(s))
	}
	for _, m := range c.plan.members {
		if m.profile.Service == s.profile.Name && m.item.Sealed != nil {
			return append(paths, path.Join(DefaultRunDir, c.set().Name))
		}
	}
	return paths
}

// configOf is the file that our settings for a service are in.
func (c *Change) configOf(s served) string {
	name := path.Join(keylime.ConfigDir, s.profile.Component+".conf")
	at := slices.IndexFunc(c.plan.dropIns, func(d keylime.DropIn) bool { return d.Profile.Component == s.profile.Component })
	if at >= 0 && c.plan.dropIns[at].Mode == keylime.InMain {
		return name
	}
	return path.Join(name+".d", keylime.DropInFile)
}

// maxSettings bounds a configuration file, in bytes.
const maxSettings = 1 << 20

func (c *Change) readsConfig(s served) error {
	if s.general() {
		return nil // of its configuration we know nothing
	}
	if _, err := service.ReadAs(c.installer.root(), s.controller.Account(), c.configOf(s), maxSettings); err != nil {
		return unreadable(c.configOf(s), err)
	}
	return nil
}

// reads lists what a certificate's service opens of the set.
func (m member) reads(files []beneath.File) []string {
	var names []string
	for _, name := range []string{m.item.Name + ".key", m.item.Name + ".crt", m.profile.Bundle()} {
		if _, there := fileset.Find(files, name); there {
			names = append(names, name)
		}
	}
	return names
}

// readBy reads files of the set as an account, each the way the service does. What it
// sees must be what the set has: nothing else is behind the link.
func (c *Change) readBy(who account.Account, names []string, files []beneath.File) ([]beneath.File, error) {
	read := slices.Clone(files)
	for _, name := range names {
		where := path.Join(c.set().Folder, name)
		content, err := service.ReadAs(c.installer.root(), who, where, keypair.MaxFile)
		if err != nil {
			return nil, unreadable(where, err)
		}
		at := slices.IndexFunc(read, func(f beneath.File) bool { return f.Name == name })
		if !bytes.Equal(content, read[at].Content) {
			return nil, fmt.Errorf("%s is not what was installed", where)
		}
		read[at].Content = content
	}
	return read, nil
}

func unreadable(name string, err error) error {
	return remedy.Errorf("namei -l "+name+" shows which folder or file is closed to that user", "%w: %w", ErrUnreadable, err)
}

// serves judges a pair once more: it matches, is within its dates, has its one usage
// and reaches a root of the bundle. A certificate that is not in the set is none of
// this change's.
func (m member) serves(files []beneath.File, known keypair.Authorities, now time.Time) error {
	p, found, err := fileset.Pair(files, m.item.Name)
	if err != nil || !found {
		return err
	}
	leaf := p.Leaf()
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return fmt.Errorf("it is valid from %s to %s", leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	return fileset.Vouch(files, p, m.profile, known, now)
}

// registrarPatience is how long a registrar may be away, as when it restarts.
const registrarPatience = 20 * time.Second

// awaitRegistrar waits until the registrar answers where this host's agent will look
// for it, on whatever host that is: the agent listens only once it has registered.
// Where the agent's configuration does not say, nothing is known and nothing waited
// for.
func (c *Change) awaitRegistrar(ctx context.Context) error {
	at := slices.IndexFunc(c.restart, func(s served) bool { return s.profile.Name == keylime.Agent })
	if at < 0 {
		return nil
	}
	address, err := c.registrarOf(c.restart[at].profile)
	if address == "" || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, min(registrarPatience, c.installer.outage()))
	defer cancel()
	if err := probe.Ready(ctx, address, nil); err != nil {
		return remedy.Errorf("start the registrar first: the agent cannot come back without it", "the agent is not restarted: its registrar does not answer: %w", err)
	}
	return nil
}

func (c *Change) registrarOf(agent keylime.Profile) (string, error) {
	settings, err := agent.Load(c.installer.root())
	if err != nil {
		return "", err
	}
	ip := settings.Get("registrar_ip", "")
	if ip == "" {
		return "", nil
	}
	port, err := strconv.ParseUint(settings.Get("registrar_port", "8890"), 10, 16)
	if err != nil {
		return "", fmt.Errorf("agent.conf: registrar_port: %w", err)
	}
	return probe.Address(ip, int(port)), nil
}
