// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/record"
	"funlab.casa/omen/install/remedy"
)

// Output says where other programs find the CAs of an item. Both are links into
// the current set, absolute on the host, so that they change with it; empty: none.
type Output struct {
	PEM         string // intermediates, then roots
	SPIFFE      string // the roots, as the bundle of TrustDomain (SPIFFE Trust Domain and Bundle, section 4)
	TrustDomain string
}

// The files of a set that outputs lead to.
const (
	outputPEM    = ".bundle.pem"
	outputSPIFFE = ".bundle.json"
)

// ErrOccupied means that something else stands where a link of ours should.
var ErrOccupied = errors.New("is not a link to it")

// outputs are the files of the set that a member's outputs lead to.
func (m member) outputs(authorities []*x509.Certificate) ([]beneath.File, error) {
	var files []beneath.File
	if m.item.Output.PEM != "" {
		files = append(files, fileset.Public(m.item.Name+outputPEM, keypair.Bundle(authorities)))
	}
	if m.item.Output.SPIFFE != "" {
		text, err := spiffeBundle(m.item.Output.TrustDomain, authorities)
		if err != nil {
			return nil, err
		}
		files = append(files, fileset.Public(m.item.Name+outputSPIFFE, text))
	}
	return files, nil
}

func spiffeBundle(trustDomain string, authorities []*x509.Certificate) ([]byte, error) {
	name, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("trust domain: %w", err)
	}
	roots := spiffebundle.New(name)
	for _, cert := range authorities {
		if keypair.IsRoot(cert) {
			roots.AddX509Authority(cert)
		}
	}
	if roots.Empty() {
		return nil, errors.New("a SPIFFE bundle without a root")
	}
	return roots.Marshal()
}

// withoutOutputs leaves out what outputs of before led to: a link that nobody
// configures any more leads nowhere rather than to CAs of long ago.
func (c *Change) withoutOutputs(before []beneath.File) []beneath.File {
	return slices.DeleteFunc(slices.Clone(before), func(old beneath.File) bool {
		return slices.ContainsFunc(c.plan.members, func(m member) bool {
			return old.Name == m.item.Name+outputPEM || old.Name == m.item.Name+outputSPIFFE
		})
	})
}

func (i *Installer) outputLinks(p *plan) []record.Link {
	var links []record.Link
	for _, m := range p.members {
		for suffix, at := range map[string]string{outputPEM: m.item.Output.PEM, outputSPIFFE: m.item.Output.SPIFFE} {
			if at != "" {
				links = append(links, record.Link{Path: at, Target: path.Join(i.linkTarget(), m.item.Name+suffix)})
			}
		}
	}
	return links
}

// absentOutputs lists the links that are not there yet; anything else that stands
// at such a path is an error.
func (i *Installer) absentOutputs(p *plan) ([]record.Link, error) {
	var absent []record.Link
	for _, link := range i.outputLinks(p) {
		there, err := i.hasOutput(link)
		if err != nil {
			return nil, err
		}
		if !there {
			absent = append(absent, link)
		}
	}
	return absent, nil
}

func (i *Installer) hasOutput(link record.Link) (bool, error) {
	dir, err := beneath.Open(i.root(), path.Dir(link.Path))
	if err != nil {
		return false, &remedy.Error{Err: fmt.Errorf("CA bundle %s: %w", link.Path, err), Hint: "make the folder that the CA bundle shall be in"}
	}
	defer dir.Close()
	info, err := dir.Stat(path.Base(link.Path))
	if err != nil || info.Kind == beneath.Absent {
		return false, err
	}
	if info.Kind == beneath.Link {
		if target, err := dir.ReadLink(path.Base(link.Path)); err == nil && target == link.Target {
			return true, nil
		}
	}
	return false, remedy.Errorf("move what stands there away, or name another file", "%s %w: the CA bundle is %s", link.Path, ErrOccupied, link.Target)
}

// linkOutputs makes the links that are not there. They lead to the current set,
// and are made once.
func (c *Change) linkOutputs() error {
	absent, err := c.installer.absentOutputs(c.plan)
	if err != nil {
		return err
	}
	for _, link := range absent {
		if err := c.installer.inFolderOf(link, func(dir *beneath.Dir, name string) error { return dir.Symlink(link.Target, name) }); err != nil {
			return err
		}
		c.outputs = append(c.outputs, link)
	}
	return nil
}

// unlinkOutputs takes back the links that this change made.
func (c *Change) unlinkOutputs() error {
	var errs []error
	for _, link := range c.outputs {
		errs = append(errs, c.installer.inFolderOf(link, (*beneath.Dir).Remove))
	}
	return errors.Join(errs...)
}

func (i *Installer) inFolderOf(link record.Link, act func(dir *beneath.Dir, name string) error) error {
	dir, err := beneath.Open(i.root(), path.Dir(link.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return errors.Join(act(dir, path.Base(link.Path)), dir.Sync())
}
