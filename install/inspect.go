// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
)

// Inspected is one certificate of the current set, and what is wrong with it.
type Inspected struct {
	Certificate
	Missing   error // it is not there, or no certificate; the rest is empty
	DNSNames  []string
	Addresses []string // IP addresses, as net.IP and netip.Addr write them
	URIs      []string
	Usage     error // it has another usage than its profile's, or more than one
	Pair      error // its key is another one, or cannot be read
	Chain     error // it does not reach a root of the set's CA file
}

// Inspect judges every certificate of the items in the current set by itself. It
// changes nothing and takes no lock. Nothing installed is ErrNotInstalled.
func (i *Installer) Inspect(items []Item) ([]Inspected, error) {
	_, files, err := i.installed()
	if err != nil {
		return nil, err
	}
	var all []Inspected
	for _, item := range items {
		profile, known := profileOf(item)
		if !known || profile.RootOnly {
			continue
		}
		inspected, err := inspect(files, item.Name, profile, time.Now())
		if err != nil {
			inspected = Inspected{Certificate: Certificate{Name: item.Name}, Missing: err}
		}
		all = append(all, inspected)
	}
	return all, nil
}

func inspect(files []beneath.File, name string, profile keylime.Profile, now time.Time) (Inspected, error) {
	certificate, there := fileset.Find(files, name+".crt")
	if !there {
		return Inspected{}, ErrNotInstalled
	}
	chain, err := keypair.ParseCertificates(certificate.Content)
	if err == nil && len(chain) == 0 {
		err = errors.New("no certificate in it")
	}
	if err != nil {
		return Inspected{}, err
	}
	leaf := chain[0]
	found := Inspected{Certificate: describe(name, leaf), DNSNames: leaf.DNSNames}
	for _, ip := range leaf.IPAddresses {
		found.Addresses = append(found.Addresses, ip.String())
	}
	for _, uri := range leaf.URIs {
		found.URIs = append(found.URIs, uri.String())
	}
	if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != profile.Usage || len(leaf.UnknownExtKeyUsage) > 0 {
		found.Usage = fmt.Errorf("its extended key usages are not exactly the one of %s", profile.Name)
	}
	_, _, found.Pair = fileset.Pair(files, name)
	found.KeyPlace, found.Sealed = fileset.KeyPlace(files, name)
	if found.NotGiven = errors.Is(found.Pair, ErrNoPlainKey); found.NotGiven {
		found.Pair = nil
	}
	// Of a certificate that has expired the end is told elsewhere.
	when := now
	if now.After(leaf.NotAfter) {
		when = leaf.NotAfter
	}
	found.Chain = fileset.Vouch(files, &keypair.Pair{Chain: chain}, profile, keypair.Authorities{}, when)
	return found, nil
}
