// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
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
		more, err := parseCertificates(text)
		if err != nil {
			return nil, err
		}
		sides[side] = append(sides[side], more...)
	}
	if c.set().Name != KeylimeSet.Name { // one certificate: whoever reads it knows on which side it is
		return append(files, public(keylime.BundleFile, bundle(sides[keylime.BundleFile]))), nil
	}
	servers, clients := bundle(sides[keylime.BundleFile]), bundle(sides[keylime.ClientsBundleFile])
	switch {
	case len(clients) == 0:
		clients = servers
	case len(servers) == 0:
		servers = clients
	}
	return append(files, public(keylime.BundleFile, servers), public(keylime.ClientsBundleFile, clients)), nil
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
	return otherBundle(before, files, keylime.BundleFile) || otherBundle(before, files, keylime.ClientsBundleFile), nil
}

// public is a file of the set that everybody may read.
func public(name string, content []byte) beneath.File {
	return beneath.File{Name: name, Mode: certMode, UID: os.Geteuid(), GID: os.Getegid(), Content: content}
}

// authorities are the CAs of a member: those that its item brings, and those above
// its certificate. One that is carried over keeps what vouched for it in the set
// before, for as long as it is used.
func (m member) authorities(before []beneath.File) ([]*x509.Certificate, error) {
	ca, err := parseCertificates(m.item.CA)
	if err != nil {
		return nil, err
	}
	if m.fresh != nil {
		return append(slices.Clone(m.fresh.chain[1:]), ca...), nil
	}
	chain, err := certificatesIn(before, m.item.Name+".crt")
	if err != nil || len(chain) == 0 {
		return ca, err
	}
	pool := chain[1:]
	for _, name := range []string{keylime.BundleFile, keylime.ClientsBundleFile} {
		old, err := certificatesIn(before, name)
		if err != nil {
			return nil, err
		}
		pool = append(pool, old...)
	}
	return append(ca, issuersOf(chain[0], pool)...), nil
}

func certificatesIn(files []beneath.File, name string) ([]*x509.Certificate, error) {
	found, _ := file(files, name)
	certificates, err := parseCertificates(found.Content)
	if err != nil {
		return nil, fmt.Errorf("%s of the set before: %w", name, err)
	}
	return certificates, nil
}

// issuersOf finds in pool what vouches for cert, and for that, as far as it goes:
// people's bundles may end before the root.
func issuersOf(cert *x509.Certificate, pool []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	for open := []*x509.Certificate{cert}; len(open) > 0; open = open[1:] {
		for _, ca := range pool {
			if bytes.Equal(ca.RawSubject, open[0].RawIssuer) && !slices.ContainsFunc(found, ca.Equal) && open[0].CheckSignatureFrom(ca) == nil {
				found, open = append(found, ca), append(open, ca)
			}
		}
	}
	return found
}

// otherBundle reports whether a CA file has other certificates than in the set
// before; their order tells services nothing.
func otherBundle(before, files []beneath.File, name string) bool {
	inOrder := func(files []beneath.File) ([]*x509.Certificate, error) {
		list, err := certificatesIn(files, name)
		slices.SortFunc(list, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
		return list, err
	}
	old, oldErr := inOrder(before)
	now, err := inOrder(files)
	return errors.Join(oldErr, err) != nil || !slices.EqualFunc(old, now, (*x509.Certificate).Equal)
}

// apart reports that clients are verified by other CAs than a server's certificate:
// to its own service that certificate is a stranger's.
func apart(files []beneath.File, own *x509.Certificate) bool {
	clients, err := certificatesIn(files, keylime.ClientsBundleFile)
	return err == nil && len(clients) > 0 && len(issuersOf(own, clients)) == 0
}

// bundle builds a CA file: intermediates before roots, each once, in the order they
// first appear.
func bundle(certificates []*x509.Certificate) []byte {
	var intermediates, roots []*x509.Certificate
	seen := map[string]bool{}
	for _, cert := range certificates {
		if seen[string(cert.Raw)] || !cert.IsCA {
			continue
		}
		seen[string(cert.Raw)] = true
		if isRoot(cert) {
			roots = append(roots, cert)
		} else {
			intermediates = append(intermediates, cert)
		}
	}
	return encode(append(intermediates, roots...))
}
