// SPDX-License-Identifier: Apache-2.0

package install

import (
	"path"

	"funlab.casa/omen/install/beneath"
)

// InMemory says why the plain form of sealed keys cannot be kept on this host; nil
// where the folder above [DefaultRunDir] is a file system in memory. The error wraps
// [ErrNotMemory] where it is not.
func (i *Installer) InMemory() error {
	parent, err := beneath.Open(i.root(), path.Dir(DefaultRunDir))
	if err != nil {
		return err
	}
	defer parent.Close()
	return inMemory(parent)
}
