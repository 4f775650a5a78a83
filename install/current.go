// SPDX-License-Identifier: Apache-2.0

package install

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/generation"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/install/record"
)

// Installed is the current set.
type Installed struct {
	Generation   int           `json:"generation"`
	Unproven     bool          `json:"unproven,omitempty"` // its installation, or the way back to it, ended in the middle
	Damage       []Damage      `json:"damage,omitempty"`   // what somebody else did to its files
	Certificates []Certificate `json:"certificates"`
}

// Certificate describes one installed leaf.
type Certificate struct {
	Name       string    `json:"name"`
	CommonName string    `json:"common_name"`
	Serial     string    `json:"serial"` // as OpenBao writes it: hexadecimal pairs with colons
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	KeyPlace   string    `json:"-"` // KeyInFile, KeySealed or KeyInTPM
	Sealed     []byte    `json:"-"` // what a sealed key comes back from
	NotGiven   bool      `json:"-"` // the plain form of a sealed key is not there
}

// Keyless reports that the key of a certificate is sealed and not where its service
// reads it: not given out since the boot, taken away since, or another one by now.
func (i *Installed) Keyless(certificate string) bool {
	return slices.ContainsFunc(i.Certificates, func(c Certificate) bool { return c.Name == certificate && c.NotGiven }) ||
		slices.ContainsFunc(i.Damage, func(d Damage) bool { return d.Certificate == certificate && d.Harm == PlainLost })
}

// Current describes what is installed; nothing is ErrNotInstalled. Files that
// are no certificate are passed over: the set may hold what people put there.
func (i *Installer) Current() (*Installed, error) {
	number, files, err := i.installed()
	if err != nil {
		return nil, err
	}
	result := &Installed{Generation: number}
	if result.Unproven, result.Damage, err = i.doubts(number); err != nil {
		return nil, err
	}
	for _, f := range files {
		name, isCert := strings.CutSuffix(f.Name, ".crt")
		_, isForm := fileset.FormOf(files, f.Name)
		if !isCert || isForm || f.Name == keylime.BundleFile || f.Name == keylime.ClientsBundleFile {
			continue
		}
		chain, err := keypair.ParseCertificates(f.Content)
		if err == nil && len(chain) == 0 {
			err = errors.New("no certificate in it")
		}
		if err != nil {
			i.log().Warn("unreadable certificate", "file", f.Name, "error", err)
			continue
		}
		described := describe(name, chain[0])
		described.KeyPlace, described.Sealed = fileset.KeyPlace(files, name)
		key, _ := fileset.Find(files, name+".key")
		described.NotGiven = described.KeyPlace == KeySealed && len(key.Content) == 0
		result.Certificates = append(result.Certificates, described)
	}
	return result, nil
}

// doubts are what speaks against a set: that it was never proven, and what somebody
// else did to it.
func (i *Installer) doubts(number int) (unproven bool, damage []Damage, err error) {
	s, err := generation.Open(i.root(), i.stateDir(), i.set().Name)
	if err != nil {
		return false, nil, err
	}
	defer s.Close()
	journal, err := s.Dir.Stat(record.JournalName)
	if err != nil {
		return false, nil, err
	}
	_, damage, err = s.Inspect(number)
	return journal.Kind != beneath.Absent, damage, err
}

func describe(name string, leaf *x509.Certificate) Certificate {
	return Certificate{
		Name: name, CommonName: leaf.Subject.CommonName, Serial: probe.Serial(leaf),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
	}
}
