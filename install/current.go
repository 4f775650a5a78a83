// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
)

// Installed is the current set.
type Installed struct {
	Generation   int           `json:"generation"`
	Certificates []Certificate `json:"certificates"`
}

// Certificate describes one installed leaf.
type Certificate struct {
	Name       string    `json:"name"`
	CommonName string    `json:"common_name"`
	Serial     string    `json:"serial"` // as OpenBao writes it: hexadecimal pairs with colons
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
}

// Current describes what is installed; nothing is ErrNotInstalled. Files that
// are no certificate are passed over: the set may hold what people put there.
func (i *Installer) Current() (*Installed, error) {
	number, files, err := i.installed()
	if err != nil {
		return nil, err
	}
	result := &Installed{Generation: number}
	for _, f := range files {
		name, isCert := strings.CutSuffix(f.Name, ".crt")
		if !isCert || f.Name == keylime.BundleFile {
			continue
		}
		chain, err := parseCertificates(f.Content)
		if err == nil && len(chain) == 0 {
			err = errors.New("no certificate in it")
		}
		if err != nil {
			i.log().Warn("unreadable certificate", "file", f.Name, "error", err)
			continue
		}
		result.Certificates = append(result.Certificates, describe(name, chain[0]))
	}
	return result, nil
}

func describe(name string, leaf *x509.Certificate) Certificate {
	return Certificate{
		Name: name, CommonName: leaf.Subject.CommonName, Serial: probe.Serial(leaf),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
	}
}
