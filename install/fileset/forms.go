// SPDX-License-Identifier: Apache-2.0

package fileset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/record"
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

// FormsSuffix marks the record of a set's forms: what is written again when a sealed
// key comes back, with nothing at hand but the set.
const FormsSuffix = ".forms"

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

func (f *forms) Check() error {
	if f.KeyMode&^0o640 != 0 || len(f.Files) > record.MaxEntries {
		return errors.New("record of impossible forms")
	}
	for _, one := range f.Files {
		if !record.IsFileName(one.Name) {
			return fmt.Errorf("record of an impossible form %q", one.Name)
		}
	}
	return nil
}

// holdsKey: it is as secret as the key.
func (f form) holdsKey() bool {
	return f.Kind == formKey || f.Kind == formCombined || f.Kind == formPKCS12
}

// Make are those of the pair whose key this is, and their record. What holds the key
// has its mode and owner.
func (f Files) Make(root string, key beneath.File, chain, ca []byte) ([]beneath.File, error) {
	name := strings.TrimSuffix(key.Name, ".key")
	all := f.record(name, key.Mode)
	var made []beneath.File
	for _, one := range all.Files {
		content, err := one.content(root, key.Content, chain, ca)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.Name, err)
		}
		if len(content) == 0 {
			continue
		}
		form := Public(one.Name, content)
		if one.holdsKey() {
			form.Mode, form.UID, form.GID = key.Mode, key.UID, key.GID
		}
		made = append(made, form)
	}
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return append(made, Public(name+FormsSuffix, text)), nil
}

// record is that of the forms. A name that the set has anyway for the same is none.
func (f Files) record(name string, mode uint32) forms {
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
	text, there := Find(files, name+FormsSuffix)
	if !there {
		return nil
	}
	f := &forms{}
	if record.Decode(text.Content, f) != nil {
		return nil
	}
	return f
}

// FormOf finds the certificate that a file of a set is a form of.
func FormOf(files []beneath.File, name string) (certificate string, found bool) {
	certificate, _, found = formIn(files, name)
	return certificate, found
}

// formIn finds the form that a file of a set is, and whose.
func formIn(files []beneath.File, name string) (certificate string, kind form, found bool) {
	for _, f := range files {
		certificate, isRecord := strings.CutSuffix(f.Name, FormsSuffix)
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
	certificates, err := keypair.ParseCertificates(chain)
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
		return keypair.EncodeCertificates(certificates[:1]), nil
	case formIntermediates:
		return keypair.EncodeCertificates(certificates[1:]), nil
	case formCA:
		return ca, nil
	case formPKCS12:
		return pkcs12File(root, f.PasswordFile, key, certificates)
	}
	return nil, fmt.Errorf("unknown form %q", f.Kind)
}

// WithoutForms leaves out the forms of before: they are made anew, or not wanted any
// more.
func WithoutForms(before []beneath.File) []beneath.File {
	return slices.DeleteFunc(slices.Clone(before), func(old beneath.File) bool {
		_, _, isForm := formIn(before, old.Name)
		return isForm || strings.HasSuffix(old.Name, FormsSuffix)
	})
}

// FormsFit reports that the forms that hold a certificate's key are there, and hold it.
func FormsFit(root string, files []beneath.File, name string) bool {
	all := formsOf(files, name)
	if all == nil {
		return true
	}
	key, _ := Find(files, name+".key")
	chain, _ := Find(files, name+".crt")
	return !slices.ContainsFunc(all.Files, func(f form) bool {
		there, _ := Find(files, f.Name)
		if !f.holdsKey() {
			return false
		}
		want, err := f.content(root, key.Content, chain.Content, nil)
		return err != nil || !bytes.Equal(there.Content, want)
	})
}

// KeyForms are the forms that hold the key of a set, as far as they can be made: what
// an error is of is missing, and what comes after it.
func KeyForms(root string, files []beneath.File, key beneath.File) ([]beneath.File, error) {
	name := strings.TrimSuffix(key.Name, ".key")
	all := formsOf(files, name)
	if all == nil {
		return nil, nil
	}
	chain, _ := Find(files, name+".crt")
	var made []beneath.File
	for _, one := range all.Files {
		if !one.holdsKey() {
			continue
		}
		content, err := one.content(root, key.Content, chain.Content, nil)
		if err != nil {
			return made, fmt.Errorf("%s: %w", one.Name, err)
		}
		form := key
		form.Name, form.Content = one.Name, content
		made = append(made, form)
	}
	return made, nil
}

// ModeOfKey is the mode of a certificate's plain key.
func ModeOfKey(files []beneath.File, name string) uint32 {
	if all := formsOf(files, name); all != nil && all.KeyMode != 0 {
		return all.KeyMode
	}
	return KeyMode
}
