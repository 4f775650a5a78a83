// SPDX-License-Identifier: Apache-2.0

package keylime

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"funlab.casa/omen/install/remedy"
)

// DropInFile is the name of our file in every conf.d.
const DropInFile = "50-omen.conf"

// Mode is where a component's settings go.
type Mode string

// The modes. "" is InDropIn.
const (
	InDropIn Mode = "drop-in" // a file of ours in conf.d
	InMain   Mode = "edit"    // the component's main file
)

// ErrMixedModes means that two certificates want the settings of their one
// component in different places.
var ErrMixedModes = errors.New("one component, two modes")

// DropIn is what points one component at the installed certificates: a file of
// ours in conf.d or, by its mode, our settings in the main file.
type DropIn struct {
	Profile  Profile // of the component's first certificate here
	Mode     Mode
	Settings []Setting
	UID, GID int   // who must be able to read it
	Groups   []int // supplementary groups of that user
}

// Use is a certificate name in the role of a profile.
type Use struct {
	Profile     Profile
	Mode        Mode
	Certificate string
	UID, GID    int
	Groups      []int
}

// CheckModes returns ErrMixedModes where certificates of one component disagree,
// and an error for a mode that is none.
func CheckModes(uses []Use) error {
	first := map[string]Use{}
	for _, use := range uses {
		if use.Mode != "" && use.Mode != InDropIn && use.Mode != InMain {
			return remedy.Errorf(`"drop-in" or "edit"`, "certificate %s: mode = %q", use.Certificate, string(use.Mode))
		}
		other, known := first[use.Profile.Component]
		if known && (other.Mode == InMain) != (use.Mode == InMain) {
			return remedy.Errorf("give both the same mode", "certificates %s and %s: %w", other.Certificate, use.Certificate, ErrMixedModes)
		}
		first[use.Profile.Component] = use
	}
	return nil
}

// DropIns returns one drop-in for each component that has a certificate here,
// with the settings of the profiles that are here and of no other.
func DropIns(uses []Use) []DropIn {
	var drops []DropIn
	for _, profile := range Profiles() {
		for _, use := range uses {
			if use.Profile.Name != profile.Name {
				continue
			}
			if len(drops) == 0 || drops[len(drops)-1].Profile.Component != profile.Component {
				drops = append(drops, DropIn{Profile: profile, Mode: use.Mode, UID: use.UID, GID: use.GID, Groups: use.Groups})
			}
			last := &drops[len(drops)-1]
			last.Settings = append(last.Settings, named(profile.Settings, use.Certificate)...)
		}
	}
	return drops
}

func named(settings []Setting, certificate string) []Setting {
	result := make([]Setting, 0, len(settings))
	for _, setting := range settings {
		setting.Value = strings.ReplaceAll(setting.Value, "%s", certificate)
		result = append(result, setting)
	}
	return result
}

// dropInHead is how every drop-in of ours begins.
const dropInHead = "# Written by omen-agent at every installation; changes here are lost.\n"

// IsOurs reports that a drop-in is one that we have written.
func IsOurs(content []byte) bool { return bytes.HasPrefix(content, []byte(dropInHead)) }

// Content is the file's text in the syntax of the component.
func (d DropIn) Content() []byte {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s[%s]\n", dropInHead, d.Profile.Component)
	for _, setting := range d.Settings {
		value := setting.Value
		if d.Profile.TOML {
			value = setting.toml()
		}
		fmt.Fprintf(&text, "%s = %s\n", setting.Key, value)
	}
	return text.Bytes()
}
