// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
)

// Why a certificate is not handed out.
var (
	ErrUnproven = errors.New("the set is not proven yet")
	ErrKeyInTPM = errors.New("the key is in the TPM and cannot be handed out")
)

// Handout is a certificate of the current set with its key, for who gives both to
// another program.
type Handout struct {
	Leaf  *x509.Certificate
	Chain [][]byte // DER, leaf first, without a root
	Key   KeyPEM   // PKCS#8
	Roots [][]byte // DER, self-signed
}

// Handout reads a certificate of the current set, without the lock. It must be proven,
// whole, valid now and fit its key, which must be given out and not be in the TPM.
func (i *Installer) Handout(certificate string) (*Handout, error) {
	number, files, err := i.installed()
	if err != nil {
		return nil, err
	}
	found, ok, err := fileset.Pair(files, certificate)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, ErrNotInstalled
	}
	if err := validAt(found.Leaf(), time.Now()); err != nil {
		return nil, fmt.Errorf("certificate %s %w", certificate, err)
	}
	h, err := handout(found)
	if err != nil {
		return nil, err
	}
	ca, _ := fileset.Find(files, keylime.BundleFile)
	authorities, err := keypair.ParseCertificates(ca.Content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keylime.BundleFile, err)
	}
	for _, authority := range authorities {
		if keypair.IsRoot(authority) {
			h.Roots = append(h.Roots, authority.Raw)
		}
	}
	if len(h.Roots) == 0 {
		return nil, fmt.Errorf("%s: no root in it", keylime.BundleFile)
	}
	if err := i.undoubted(number, certificate); err != nil {
		return nil, err
	}
	return h, nil
}

func validAt(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("expired %s", leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("is not valid before %s", leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

func handout(found *keypair.Pair) (*Handout, error) {
	if _, resident := found.Signer.(*keypair.Resident); resident {
		return nil, ErrKeyInTPM
	}
	key, err := x509.MarshalPKCS8PrivateKey(found.Signer)
	if err != nil {
		return nil, errors.New("the key has no PKCS#8 form")
	}
	h := &Handout{Leaf: found.Leaf(), Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
	for _, one := range found.Chain {
		h.Chain = append(h.Chain, one.Raw)
	}
	return h, nil
}

// undoubted refuses a set that was read while it was not proven. It is asked last: a
// set that was taken back meanwhile is not the current one any more.
func (i *Installer) undoubted(number int, certificate string) error {
	current, err := i.Current()
	switch {
	case err != nil:
		return err
	case current.Unproven || current.Generation != number:
		return ErrUnproven
	case slices.ContainsFunc(current.Damage, func(d Damage) bool { return d.Spoils(certificate) }):
		return fmt.Errorf("somebody else has changed generation %d", number)
	}
	return nil
}
