// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/x509"
	"fmt"
	"slices"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// What the files that say whom to believe may hold.
const (
	rootsHint   = "%s is one self-signed root certificate as PEM (up to 4 while a CA is replaced), and no intermediate"
	serversHint = "server_ca is one to four self-signed root certificates as PEM, and intermediates below them"
)

// readTrust reads the files that say whom to believe: the anchors of certificates,
// and Keylime's further CAs. Each renewal reads them again: while a CA is replaced
// they change below an agent that runs. On an error what was read before stays.
func (a *Agent) readTrust() error {
	anchors := map[string][]*x509.Certificate{}
	for _, c := range a.config.Certificates {
		if anchors[c.Anchor] != nil {
			continue
		}
		roots, err := readRoots(c.Anchor, "the anchor")
		if err != nil {
			return err
		}
		anchors[c.Anchor] = roots
	}
	clients, err := readRoots(a.config.Keylime.ClientCA, "client_ca")
	if err != nil {
		return err
	}
	servers, err := readBundle(a.config.Keylime.ServerCA)
	if err != nil {
		return err
	}
	a.anchors, a.clients = anchors, clients
	a.install.Trust = install.Trust{Clients: issuer.EncodeCertificates(clients), Servers: servers}
	return nil
}

// readRoots reads a file of roots; no file has none.
func readRoots(file, what string) ([]*x509.Certificate, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readSmall(file)
	if err == nil {
		var roots []*x509.Certificate
		if roots, err = issuer.ParseAnchors(text); err == nil {
			return roots, nil
		}
	}
	return nil, &config.Error{File: file, Err: err, Hint: fmt.Sprintf(rootsHint, what)}
}

// readBundle reads a file of roots and intermediates; no file has none.
func readBundle(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := readSmall(file)
	if err == nil {
		var roots, intermediates []*x509.Certificate
		if roots, intermediates, err = issuer.ParseBundle(text); err == nil {
			return issuer.EncodeCertificates(slices.Concat(intermediates, roots)), nil
		}
	}
	return nil, &config.Error{File: file, Err: err, Hint: serversHint}
}

// SharedCA is what Remarks says where clients have no CA of their own.
const SharedCA = "whoever holds a client certificate of the CA that Keylime's servers have theirs from is an administrator of Keylime: " +
	"give the client certificates a CA of their own (path and anchor in [[certificate]], client_ca in [keylime])"

// Remarks lists what is weaker than it could be in this configuration, a line each.
func (a *Agent) Remarks() []string {
	remarks := a.strangers()
	if a.SharesCA() {
		remarks = append(remarks, SharedCA)
	}
	return remarks
}

// SharesCA reports whether services of this host verify clients by a root that
// server certificates come from too.
func (a *Agent) SharesCA() bool {
	var servers []*x509.Certificate
	clients := slices.Clone(a.clients)
	for i := range a.config.Certificates {
		c := &a.config.Certificates[i]
		if c.Profile == config.General {
			continue // it vouches for nobody in Keylime
		}
		switch c.Usage() {
		case config.Server:
			servers = append(servers, a.anchors[c.Anchor]...)
		case config.Client:
			clients = append(clients, a.anchors[c.Anchor]...)
		}
	}
	return len(servers) > 0 && len(clients) == 0 ||
		slices.ContainsFunc(clients, func(root *x509.Certificate) bool { return slices.ContainsFunc(servers, root.Equal) })
}
