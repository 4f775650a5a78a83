// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
)

// Files says in which further forms, each under a name of its own, a general set has
// its certificate. NAME.crt (leaf, then intermediates), NAME.key and ca.crt are there
// besides; "" is none.
type Files struct {
	Certificate   string // leaf, then intermediates
	Key           string
	Combined      string // key, leaf, intermediates: one open reads one pair
	Leaf          string
	Intermediates string
	CA            string // intermediates, then roots
	PKCS12        string // key, leaf and intermediates
	PasswordFile  string // of the PKCS#12 file, absolute
	Owner         string // "user" or "user:group" of all that hold the key; "" is who the program is started as
	KeyMode       uint32 // of all that hold the key; 0 is 0600
}

// formsSuffix marks the record of a set's forms: what is written again when a sealed
// key comes back, with nothing at hand but the set.
const formsSuffix = ".forms"

// Kinds of forms.
const (
	formChain         = "certificate"
	formKey           = "key"
	formCombined      = "combined"
	formLeaf          = "leaf"
	formIntermediates = "intermediates"
	formCA            = "ca"
	formPKCS12        = "pkcs12"
)

// forms is the record.
type forms struct {
	KeyMode uint32 `json:"key_mode"`
	Files   []form `json:"files"`
}

type form struct {
	Name         string `json:"name"`
	Kind         string `json:"kind"`
	PasswordFile string `json:"password_file,omitempty"`
}

func (f *forms) check() error {
	if f.KeyMode&^0o640 != 0 || len(f.Files) > maxEntries {
		return errors.New("record of impossible forms")
	}
	for _, one := range f.Files {
		if !plainName(one.Name) {
			return fmt.Errorf("record of an impossible form %q", one.Name)
		}
	}
	return nil
}

// holdsKey: it is as secret as the key.
func (f form) holdsKey() bool {
	return f.Kind == formKey || f.Kind == formCombined || f.Kind == formPKCS12
}

// forms are those of the item. A name that the set has anyway for the same is none.
func (f Files) forms(name string, mode uint32) forms {
	all := forms{KeyMode: mode}
	for _, one := range []form{
		{Name: f.Certificate, Kind: formChain}, {Name: f.Key, Kind: formKey}, {Name: f.Combined, Kind: formCombined},
		{Name: f.Leaf, Kind: formLeaf}, {Name: f.Intermediates, Kind: formIntermediates}, {Name: f.CA, Kind: formCA},
		{Name: f.PKCS12, Kind: formPKCS12, PasswordFile: f.PasswordFile},
	} {
		if one.Name != "" && one.Name != name+".crt" && one.Name != name+".key" && one.Name != keylime.BundleFile {
			all.Files = append(all.Files, one)
		}
	}
	return all
}

// formsOf reads the record of a certificate's forms out of a set; nil for none, or for
// one that somebody spoilt.
func formsOf(files []beneath.File, name string) *forms {
	text, there := file(files, name+formsSuffix)
	if !there {
		return nil
	}
	f := &forms{}
	if decodeRecord(text.Content, f) != nil {
		return nil
	}
	return f
}

// formIn finds the form that a file of a set is, and whose.
func formIn(files []beneath.File, name string) (certificate string, kind form, found bool) {
	for _, f := range files {
		certificate, isRecord := strings.CutSuffix(f.Name, formsSuffix)
		if !isRecord {
			continue
		}
		if all := formsOf(files, certificate); all != nil {
			if at := slices.IndexFunc(all.Files, func(one form) bool { return one.Name == name }); at >= 0 {
				return certificate, all.Files[at], true
			}
		}
	}
	return "", form{}, false
}

// content is what a form of a pair has in it; nothing where there is nothing.
func (f form) content(root string, key, chain, ca []byte) ([]byte, error) {
	certificates, err := parseCertificates(chain)
	if err == nil && len(certificates) == 0 {
		err = errors.New("no certificate")
	}
	if err != nil {
		return nil, err
	}
	switch f.Kind {
	case formChain:
		return chain, nil
	case formKey:
		return key, nil
	case formCombined:
		return slices.Concat(key, chain), nil
	case formLeaf:
		return encode(certificates[:1]), nil
	case formIntermediates:
		return encode(certificates[1:]), nil
	case formCA:
		return ca, nil
	case formPKCS12:
		return pkcs12File(root, f.PasswordFile, key, certificates)
	}
	return nil, fmt.Errorf("unknown form %q", f.Kind)
}

// addForms adds to a new set the forms of its certificate, fresh or carried over.
func (c *Change) addForms(files, before []beneath.File) ([]beneath.File, error) {
	for _, m := range c.plan.members {
		if !m.item.general() {
			continue
		}
		chain, hasChain := either(files, before, m.item.Name+".crt")
		key, hasKey := either(files, before, m.item.Name+".key")
		if !hasChain || !hasKey {
			continue // nothing was issued yet
		}
		ca, _ := file(files, keylime.BundleFile)
		all := m.item.Files.forms(m.item.Name, m.keyMode())
		for _, one := range all.Files {
			content, err := one.content(c.installer.root(), key.Content, chain.Content, ca.Content)
			if err != nil {
				return nil, fmt.Errorf("certificate %s: %s: %w", m.item.Name, one.Name, err)
			}
			if len(content) == 0 {
				continue
			}
			f := public(one.Name, content)
			if one.holdsKey() {
				f.Mode, f.UID, f.GID = m.keyMode(), m.owner.UID, m.owner.GID
			}
			files = append(files, f)
		}
		text, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		files = append(files, public(m.item.Name+formsSuffix, text))
	}
	return files, nil
}

func either(files, before []beneath.File, name string) (beneath.File, bool) {
	if f, there := file(files, name); there {
		return f, true
	}
	return file(before, name)
}

// withoutForms leaves out the forms of before: they are made anew, or not wanted any
// more.
func withoutForms(before []beneath.File) []beneath.File {
	return slices.DeleteFunc(slices.Clone(before), func(old beneath.File) bool {
		_, _, isForm := formIn(before, old.Name)
		return isForm || strings.HasSuffix(old.Name, formsSuffix)
	})
}

// formsFit reports that the forms that hold a certificate's key are there, and hold it.
func formsFit(root string, files []beneath.File, name string) bool {
	all := formsOf(files, name)
	if all == nil {
		return true
	}
	key, _ := file(files, name+".key")
	chain, _ := file(files, name+".crt")
	return !slices.ContainsFunc(all.Files, func(f form) bool {
		there, _ := file(files, f.Name)
		if !f.holdsKey() {
			return false
		}
		want, err := f.content(root, key.Content, chain.Content, nil)
		return err != nil || !bytes.Equal(there.Content, want)
	})
}

// plainMode is the mode of a certificate's plain key.
func plainMode(files []beneath.File, name string) uint32 {
	if all := formsOf(files, name); all != nil && all.KeyMode != 0 {
		return all.KeyMode
	}
	return keyMode
}

// writeForms puts the forms that hold a sealed key beside its plain form.
func (s store) writeForms(number int, files []beneath.File, key beneath.File) error {
	name := strings.TrimSuffix(key.Name, ".key")
	all := formsOf(files, name)
	if all == nil {
		return nil
	}
	chain, _ := file(files, name+".crt")
	for _, one := range all.Files {
		if !one.holdsKey() {
			continue
		}
		content, err := one.content(s.root, key.Content, chain.Content, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", one.Name, err)
		}
		again := key
		again.Name, again.Content = one.Name, content
		if err := s.writePlain(number, again); err != nil {
			return err
		}
	}
	return nil
}

// examineForm reports that a form on the tmpfs has what the set says; true for what is
// no form.
func (s store) examineForm(number int, name string) (bool, error) {
	files, err := s.read(number)
	if err != nil {
		return false, err
	}
	certificate, _, isForm := formIn(files, name)
	return !isForm || formsFit(s.root, files, certificate), nil
}
