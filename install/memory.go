// SPDX-License-Identifier: Apache-2.0

package install

import "funlab.casa/omen/install/generation"

// InMemory says why the plain form of sealed keys cannot be kept on this host; nil
// where the folder above [DefaultRunDir] is a file system in memory. The error wraps
// [ErrNotMemory] where it is not.
func (i *Installer) InMemory() error {
	return generation.InMemory(i.root())
}
