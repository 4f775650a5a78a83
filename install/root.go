// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
)

// rootOnly reports that an item is for a program that verifies servers, and has no
// certificate itself.
func (i Item) rootOnly() bool {
	profile, known := keylime.Find(i.Profile)
	return known && profile.RootOnly
}

// judgeRoot refuses what is no root, and a certificate where none belongs. Without
// CA the root of the set before is meant.
func judgeRoot(item Item) error {
	if !item.carried() {
		return fmt.Errorf("profile %s has no certificate", item.Profile)
	}
	roots, err := keypair.ParseCertificates(item.CA)
	if err == nil && slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return !keypair.IsRoot(c) }) {
		err = errors.New("a certificate that is not self-signed: what follows the first is not read")
	}
	if err != nil {
		return fmt.Errorf("CA: %w", err)
	}
	return nil
}

// apartFromClients refuses a client certificate on a host that pushes its evidence:
// Keylime takes whoever holds one for an administrator, and such a host needs none.
func apartFromClients(members []member) error {
	has := func(match func(keylime.Profile) bool) *member {
		at := slices.IndexFunc(members, func(m member) bool { return match(m.profile) })
		if at < 0 {
			return nil
		}
		return &members[at]
	}
	push := has(func(p keylime.Profile) bool { return p.RootOnly })
	if push == nil {
		return nil
	}
	client := has(func(p keylime.Profile) bool { return p.Usage == x509.ExtKeyUsageClientAuth })
	agent := has(func(p keylime.Profile) bool { return p.Name == keylime.Agent })
	switch {
	case client != nil:
		return remedy.Errorf("keep it on another host", "certificate %s for clients beside profile %s", client.item.Name, push.profile.Name)
	case agent != nil:
		return remedy.Errorf("remove one of the two: a host runs one agent", "profiles %s and %s together", agent.profile.Name, push.profile.Name)
	}
	return nil
}

// rootFile is the first of the item's roots: what comes behind it is not read.
func (m member) rootFile() ([]beneath.File, error) {
	roots, err := keypair.ParseCertificates(m.item.CA)
	if err != nil || !m.profile.RootOnly || len(roots) == 0 {
		return nil, err
	}
	return []beneath.File{fileset.Public(keylime.RootFile, keypair.EncodeCertificates(roots[:1]))}, nil
}

// checkRoot is checkInstalledSet of a member without certificate.
func (m member) checkRoot(files []beneath.File) Finding {
	finding := Finding{Certificate: m.item.Name, Check: checkInstalled}
	roots, err := fileset.Certificates(files, keylime.RootFile)
	switch {
	case err != nil:
		finding.Err = err
	case len(roots) != 1:
		finding.Err = ErrNotInstalled
	default:
		finding.Detail = "root " + roots[0].Subject.String()
	}
	return finding
}
