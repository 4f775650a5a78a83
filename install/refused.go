// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"

	"funlab.casa/omen/install/beneath"
)

// withoutKeys takes every file out of a folder that is not certificates and nothing
// else, but for the manifest: a set that was refused is kept to look at, and nobody
// needs its keys for that.
func withoutKeys(dir *beneath.Dir) error {
	names, err := dir.Names()
	errs := []error{err}
	for _, name := range names {
		if name != manifestName && !onlyCertificates(dir, name) {
			errs = append(errs, dir.Remove(name))
		}
	}
	return errors.Join(append(errs, dir.Sync())...)
}

func onlyCertificates(dir *beneath.Dir, name string) bool {
	f, err := dir.Read(name, maxFile)
	if err != nil {
		return false
	}
	found, err := parseCertificates(f.Content)
	return err == nil && len(found) > 0
}
