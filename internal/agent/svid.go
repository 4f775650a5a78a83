// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/account"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/workload"
)

// WorkloadAPI is what the SPIFFE Workload API serves of this configuration, nil for
// nothing. What it gives reads the installed set, whatever the agent does meanwhile.
func (a *Agent) WorkloadAPI() *workload.Settings {
	w := a.config.WorkloadAPI
	at := slices.IndexFunc(a.config.Certificates, func(c config.Certificate) bool { return c.Name == w.Certificate })
	if !w.On() || at < 0 {
		return nil
	}
	c := a.config.Certificates[at]
	own := a.installerOf(install.Set{Name: c.Name, Folder: c.Files.Folder})
	return &workload.Settings{
		Socket:  w.Socket,
		Allowed: func(uid uint32) bool { return lists(a.accounts(), w.Users, uid) },
		SVID:    func() (*workload.SVID, error) { return svid(own, c.Name, c.URI) },
	}
}

func (a *Agent) accounts() account.Book { return account.Of(a.root()) }

// lists reports that a user is one of the list. Names are looked up each time: who is
// made later counts, and who is no user of this host is nobody.
func lists(book account.Book, users []config.User, uid uint32) bool {
	return slices.ContainsFunc(users, func(u config.User) bool {
		if number, given := u.Number(); given {
			return number == uid
		}
		found, err := book.Find(string(u))
		return err == nil && found.UID == int(uid)
	})
}

// strangers are the listed users whom this host does not know by name.
func (a *Agent) strangers() (remarks []string) {
	for _, u := range a.config.WorkloadAPI.Users {
		if _, given := u.Number(); given {
			continue
		}
		if _, err := a.accounts().Find(string(u)); err != nil {
			remarks = append(remarks, fmt.Sprintf("users in [workload_api]: %q is no user of this host, and gets nothing (names that only NSS knows: give the number)", string(u)))
		}
	}
	return remarks
}

// svid is the installed certificate as an X.509-SVID.
func svid(own *install.Installer, name, uri string) (*workload.SVID, error) {
	h, err := own.Handout(name)
	if err != nil {
		return nil, &workload.Unavailable{Says: whyNot(err), Err: err}
	}
	id, err := x509svid.IDFromCert(h.Leaf)
	if err == nil && id.String() != uri {
		err = fmt.Errorf("the installed certificate is of %s, and %s is configured", id, uri)
	}
	if err != nil {
		return nil, &workload.Unavailable{Says: "the certificate is not renewed yet", Err: err}
	}
	return &workload.SVID{
		ID: id.String(), Domain: id.TrustDomain().IDString(), Chain: h.Chain, Bundle: h.Roots, NotAfter: h.Leaf.NotAfter,
		Key: func() []byte {
			block, _ := pem.Decode(h.Key)
			return block.Bytes
		},
	}, nil
}

// whyNot is the cause in words that tell a process nothing of this host.
func whyNot(err error) string {
	switch {
	case errors.Is(err, install.ErrNotInstalled):
		return "the certificate is not installed yet"
	case errors.Is(err, install.ErrUnproven):
		return "the new certificate is not proven yet"
	case errors.Is(err, install.ErrKeyInTPM):
		return "the key is in the TPM and cannot be handed out"
	case errors.Is(err, install.ErrNoPlainKey):
		return "the key is sealed"
	}
	return "the certificate cannot be handed out"
}
