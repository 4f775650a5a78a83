// SPDX-License-Identifier: Apache-2.0

package fileset

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/remedy"
)

// Modes of the files of a set.
const (
	certMode = 0o644
	KeyMode  = 0o600
)

// certificateName is what may become a file name of the set.
var certificateName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// IsName reports that a certificate can have this name.
func IsName(name string) bool { return certificateName.MatchString(name) }

// Find picks one file out of a set.
func Find(files []beneath.File, name string) (beneath.File, bool) {
	at := slices.IndexFunc(files, func(f beneath.File) bool { return f.Name == name })
	if at < 0 {
		return beneath.File{}, false
	}
	return files[at], true
}

// Pair reads a pair out of a set.
func Pair(files []beneath.File, name string) (*keypair.Pair, bool, error) {
	certificate, hasCert := Find(files, name+".crt")
	key, hasKey := Find(files, name+".key")
	if !hasCert || !hasKey {
		return nil, false, nil
	}
	if len(key.Content) == 0 && IsSealed(files, key.Name) {
		return nil, false, remedy.Errorf("omen-agent unseal", "certificate %s: %w", name, ErrNoPlainKey)
	}
	found, err := keypair.Parse(certificate.Content, key.Content)
	if err != nil {
		return nil, false, fmt.Errorf("certificate %s: %w", name, err)
	}
	return found, true, nil
}

// Vouch refuses a pair that does not reach a root of its own set's CA file.
func Vouch(files []beneath.File, p *keypair.Pair, profile keylime.Profile, known keypair.Authorities, now time.Time) error {
	own, found := Find(files, profile.OwnBundle())
	if !found {
		own, _ = Find(files, keylime.BundleFile)
	}
	ca, err := keypair.ParseCertificates(own.Content)
	if err != nil {
		return err
	}
	return known.Vouch(p, ca, profile.Usage, now)
}

// Certificates reads the certificates in a file of a set; none where it has no such file.
func Certificates(files []beneath.File, name string) ([]*x509.Certificate, error) {
	found, _ := Find(files, name)
	certificates, err := keypair.ParseCertificates(found.Content)
	if err != nil {
		return nil, fmt.Errorf("%s of the set before: %w", name, err)
	}
	return certificates, nil
}

// Public is a file of the set that everybody may read.
func Public(name string, content []byte) beneath.File {
	return beneath.File{Name: name, Mode: certMode, UID: os.Geteuid(), GID: os.Getegid(), Content: content}
}

// OtherCertificates reports whether a CA file has other certificates than in the set
// before; their order tells services nothing.
func OtherCertificates(before, files []beneath.File, name string) bool {
	inOrder := func(files []beneath.File) ([]*x509.Certificate, error) {
		list, err := Certificates(files, name)
		slices.SortFunc(list, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
		return list, err
	}
	old, oldErr := inOrder(before)
	now, err := inOrder(files)
	return errors.Join(oldErr, err) != nil || !slices.EqualFunc(old, now, (*x509.Certificate).Equal)
}

// ApartFromClients reports that clients are verified by other CAs than a server's certificate:
// to its own service that certificate is a stranger's.
func ApartFromClients(files []beneath.File, own *x509.Certificate) bool {
	clients, err := Certificates(files, keylime.ClientsBundleFile)
	return err == nil && len(clients) > 0 && len(keypair.IssuersOf(own, clients)) == 0
}

// OtherFile reports that a file has other content in one set than in the other, or is
// in one of them only.
func OtherFile(now, then []beneath.File, name string) bool {
	a, inNow := Find(now, name)
	b, inThen := Find(then, name)
	return inNow != inThen || !bytes.Equal(a.Content, b.Content)
}

// HasAll reports that a copy has every one of the files, with the same content.
func HasAll(copied, files []beneath.File) bool {
	return !slices.ContainsFunc(files, func(f beneath.File) bool {
		kept, found := Find(copied, f.Name)
		return !found || !bytes.Equal(kept.Content, f.Content)
	})
}
