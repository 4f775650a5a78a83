// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path"

	"funlab.casa/omen/install/keylime"
)

// A Set is certificates that change together: one folder of generations, and one
// link through which their services read them.
type Set struct {
	Name   string // the folder of generations below the state directory
	Folder string // the link, absolute on the host
}

// KeylimeSet holds every certificate of Keylime on a host.
var KeylimeSet = Set{Name: "keylime", Folder: keylime.CertsDir}

// parent is the directory that the link stands in, link its name there.
func (s Set) parent() string { return path.Dir(s.Folder) }
func (s Set) link() string   { return path.Base(s.Folder) }

// Names beside the link: the link before it is exchanged for a folder, which
// then has that name, and the folder where there is no exchange.
func (s Set) parkedLink() string   { return "." + s.link() + ".omen" }
func (s Set) parkedFolder() string { return "." + s.link() + ".omen-old" }

// foundFolder is where an uninstallation makes the folder that people had, before
// it takes the link's place.
func (s Set) foundFolder() string { return "." + s.link() + ".omen-found" }
