// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
)

// Trust is CAs, PEM each, that the services of a set believe beside those of the
// certificates in it.
type Trust struct {
	Servers []byte // who vouches for servers: roots, and intermediates that servers do not send
	Clients []byte // who vouches for clients: roots
}

// trust makes the set's two CA files: what servers are verified by, from the server
// certificates of this host, and what clients are, from its client certificates. A
// side of which neither a certificate nor the configuration says anything is the
// same as the other. Beside them stands what outputs lead to.
func (c *Change) trust(before []beneath.File) ([]beneath.File, error) {
	var files []beneath.File
	sides := map[string][]*x509.Certificate{}
	for _, m := range c.plan.members {
		found, err := m.authorities(before)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
		side := m.profile.OwnBundle()
		sides[side] = append(sides[side], found...)
		outputs, err := m.outputs(found)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
		files = append(files, outputs...)
	}
	for side, text := range map[string][]byte{
		keylime.BundleFile: c.installer.Trust.Servers, keylime.ClientsBundleFile: c.installer.Trust.Clients,
	} {
		more, err := keypair.ParseCertificates(text)
		if err != nil {
			return nil, err
		}
		sides[side] = append(sides[side], more...)
	}
	if c.set().Name != KeylimeSet.Name { // one certificate: whoever reads it knows on which side it is
		return append(files, fileset.Public(keylime.BundleFile, keypair.Bundle(sides[keylime.BundleFile]))), nil
	}
	servers, clients := keypair.Bundle(sides[keylime.BundleFile]), keypair.Bundle(sides[keylime.ClientsBundleFile])
	switch {
	case len(clients) == 0:
		clients = servers
	case len(servers) == 0:
		servers = clients
	}
	return append(files, fileset.Public(keylime.BundleFile, servers), fileset.Public(keylime.ClientsBundleFile, clients)), nil
}

// OtherTrust reports that a renewal would write other CA files than the current set
// has: a root was added to what the configuration names, or taken away. It changes
// nothing. Items come with the CAs that are configured, without chain and key; nothing
// installed is ErrNotInstalled.
func (i *Installer) OtherTrust(items []Item) (bool, error) {
	_, before, err := i.installed()
	if err != nil {
		return false, err
	}
	members, err := judge(items, time.Now())
	if err != nil {
		return false, err
	}
	c := &Change{installer: i, plan: &plan{members: members}}
	files, err := c.trust(before)
	if err != nil {
		return false, err
	}
	return fileset.OtherCertificates(before, files, keylime.BundleFile) || fileset.OtherCertificates(before, files, keylime.ClientsBundleFile), nil
}

// authorities are the CAs of a member: those that its item brings, and those above
// its certificate. One that is carried over keeps what vouched for it in the set
// before, for as long as it is used.
func (m member) authorities(before []beneath.File) ([]*x509.Certificate, error) {
	ca, err := keypair.ParseCertificates(m.item.CA)
	if err != nil {
		return nil, err
	}
	if m.fresh != nil {
		return append(slices.Clone(m.fresh.Chain[1:]), ca...), nil
	}
	chain, err := fileset.Certificates(before, m.item.Name+".crt")
	if err != nil || len(chain) == 0 {
		return ca, err
	}
	pool := chain[1:]
	for _, name := range []string{keylime.BundleFile, keylime.ClientsBundleFile} {
		old, err := fileset.Certificates(before, name)
		if err != nil {
			return nil, err
		}
		pool = append(pool, old...)
	}
	return append(ca, keypair.IssuersOf(chain[0], pool)...), nil
}
