// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/keypair"
	"funlab.casa/omen/install/record"
)

const (
	// ManifestName is a file of every generation: the last that is written, the
	// first that is removed, so that a generation without it is not whole.
	ManifestName    = ".omen-manifest"
	manifestVersion = 1
)

// Manifest says what a generation was when it was written.
type Manifest struct {
	Version int     `json:"version"`
	Files   []Entry `json:"files"`
	Told    []Told  `json:"told,omitempty"` // what components are told with the set
}

// Entry is one file. Of a sealed key, which is a link, there is no hash: its
// plain form belongs to the certificate beside it, or it does not.
type Entry struct {
	Name   string `json:"name"`
	Mode   uint32 `json:"mode"`
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	SHA256 string `json:"sha256,omitempty"`
	Sealed bool   `json:"sealed,omitempty"`
}

// Check refuses a manifest that no version of ours has written.
func (m *Manifest) Check() error {
	if m.Version != manifestVersion || len(m.Files) > record.MaxFiles || len(m.Told) > record.MaxEntries {
		return errors.New("manifest of another version, or too long")
	}
	for _, e := range m.Files {
		if !record.IsFileName(e.Name) || e.Mode > 0o7777 || e.UID < 0 || e.GID < 0 || e.Sealed != (e.SHA256 == "") {
			return fmt.Errorf("manifest has an impossible file %q", e.Name)
		}
	}
	for _, t := range m.Told {
		if err := t.check(); err != nil {
			return err
		}
	}
	return nil
}

func newManifest(files []beneath.File, drops []keylime.DropIn) *Manifest {
	m := &Manifest{Version: manifestVersion, Told: tell(drops)}
	for _, f := range files {
		e := Entry{Name: f.Name, Mode: f.Mode, UID: f.UID, GID: f.GID, Sealed: fileset.IsSealed(files, f.Name)}
		if !e.Sealed {
			e.SHA256 = hashOf(f.Content)
		}
		m.Files = append(m.Files, e)
	}
	return m
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Entry finds a file; nil when the manifest has none of that name, or there is
// no manifest.
func (m *Manifest) Entry(name string) *Entry {
	if m == nil {
		return nil
	}
	at := slices.IndexFunc(m.Files, func(e Entry) bool { return e.Name == name })
	if at < 0 {
		return nil
	}
	return &m.Files[at]
}

// Harm is what somebody else did to a file of a generation.
type Harm string

// What can have happened.
const (
	Changed   Harm = "changed"
	Missing   Harm = "missing"
	Added     Harm = "added"
	Reowned   Harm = "mode or owner changed"
	PlainLost Harm = "plain key does not belong to the certificate"
)

// Damage is one file that is not as Install left it.
type Damage struct {
	File        string `json:"file"`
	Certificate string `json:"certificate,omitempty"` // whose file it is
	Harm        Harm   `json:"harm"`
	Mended      bool   `json:"mended,omitempty"`
}

// String is for logs and people.
func (d Damage) String() string {
	if d.Mended {
		return d.File + ": " + string(d.Harm) + ", put right"
	}
	return d.File + ": " + string(d.Harm)
}

// Lost reports that the file can not be had back.
func (d Damage) Lost() bool { return d.Harm == Changed || d.Harm == Missing }

// Spoils reports that a certificate cannot be carried over because of it: a file
// of it is not ours any more, or the CA bundle, or the list of what was ours.
func (d Damage) Spoils(certificate string) bool {
	return d.Lost() && (d.Certificate == certificate || isBundle(d.File) || d.File == ManifestName)
}

// certificateOf is the certificate whose file has this name, if it is one. A set
// beside Keylime's has one, whatever its files are called.
func certificateOf(set, name string) string {
	if set != keylime.SetName && !isBundle(name) && name != ManifestName {
		return set
	}
	base, suffix, _ := strings.Cut(name, ".")
	if !fileset.IsName(base) || suffix == "" || isBundle(name) {
		return ""
	}
	return base
}

func isBundle(name string) bool {
	return name == keylime.BundleFile || name == keylime.ClientsBundleFile || name == keylime.RootFile
}

// readManifest returns the manifest of a generation that is open.
func readManifest(dir *beneath.Dir) (*Manifest, error) {
	m := &Manifest{}
	if err := record.Read(dir, ManifestName, m); err != nil {
		return nil, err
	}
	return m, nil
}

// Inspect holds a generation against its manifest. Without one the damage is
// just that, and the manifest nil.
func (s Store) Inspect(number int) (*Manifest, []Damage, error) {
	dir, err := s.Dir.Sub(NameOf(number))
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	m, err := readManifest(dir)
	if err != nil {
		harm := Changed
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil, nil, err
		case errors.Is(err, fs.ErrNotExist):
			harm = Missing
		}
		return nil, []Damage{{File: ManifestName, Harm: harm}}, nil
	}
	names, err := dir.Names()
	if err != nil {
		return nil, nil, err
	}
	var all []Damage
	for _, e := range m.Files {
		harm, err := s.examine(dir, number, e)
		if err != nil {
			return nil, nil, err
		}
		if harm != "" {
			all = append(all, Damage{File: e.Name, Certificate: certificateOf(s.set, e.Name), Harm: harm})
		}
	}
	for _, name := range names {
		if name != ManifestName && m.Entry(name) == nil {
			all = append(all, Damage{File: name, Certificate: certificateOf(s.set, name), Harm: Added})
		}
	}
	return m, all, nil
}

// examine holds one file against its entry.
func (s Store) examine(dir *beneath.Dir, number int, e Entry) (Harm, error) {
	if e.Sealed {
		return s.examineSealed(dir, number, e)
	}
	f, err := dir.Read(e.Name, keypair.MaxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing, nil
	case errors.Is(err, beneath.ErrNotPlain) || errors.Is(err, beneath.ErrTooLarge):
		return Changed, nil
	case err != nil:
		return "", err
	case hashOf(f.Content) != e.SHA256:
		return Changed, nil
	}
	return e.rights(f), nil
}

func (e Entry) rights(f beneath.File) Harm {
	if f.Mode != e.Mode || f.UID != e.UID || f.GID != e.GID {
		return Reowned
	}
	return ""
}

// examineSealed looks at the link, and at the plain key where there is one.
func (s Store) examineSealed(dir *beneath.Dir, number int, e Entry) (Harm, error) {
	info, err := dir.Stat(e.Name)
	if err != nil {
		return "", err
	}
	switch info.Kind {
	case beneath.Absent:
		return Missing, nil
	case beneath.Link:
	default:
		return Changed, nil
	}
	if target, err := dir.ReadLink(e.Name); err != nil || target != s.runPath(number, e.Name) {
		return Changed, err
	}
	key, err := s.readPlain(number, e.Name)
	if err != nil || len(key.Content) == 0 {
		return "", err
	}
	if fits, err := s.examineForm(number, e.Name); err != nil || !fits {
		return PlainLost, err
	}
	name := strings.TrimSuffix(e.Name, ".key")
	certificate, err := dir.Read(name+".crt", keypair.MaxFile)
	if err == nil && !fileset.PlainFits([]beneath.File{certificate, key}, name) {
		return PlainLost, nil
	}
	return e.rights(key), nil // a certificate that is not there is named by itself
}
