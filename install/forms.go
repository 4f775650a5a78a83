// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"

	"funlab.casa/omen/install/beneath"
	"funlab.casa/omen/install/fileset"
	"funlab.casa/omen/install/keylime"
)

// Files says in which further forms, each under a name of its own, a general set has
// its certificate, and whose they are.
type Files = fileset.Files

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
		ca, _ := fileset.Find(files, keylime.BundleFile)
		key.Mode, key.UID, key.GID = m.keyMode(), m.owner.UID, m.owner.GID
		made, err := m.item.Files.Make(c.installer.root(), key, chain.Content, ca.Content)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", m.item.Name, err)
		}
		files = append(files, made...)
	}
	return files, nil
}

func either(files, before []beneath.File, name string) (beneath.File, bool) {
	if f, there := fileset.Find(files, name); there {
		return f, true
	}
	return fileset.Find(before, name)
}
