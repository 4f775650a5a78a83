// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"funlab.casa/omen/install/beneath"
)

// fileMode: the figures are for everybody on this host.
const fileMode = 0o644

// write writes the text file, if there is to be one. Whoever renews is not kept
// from it by a file that cannot be written.
func (m *Metrics) write() {
	if m.textfile == "" {
		return
	}
	text, err := m.Text()
	if err == nil {
		err = replace(m.textfile, text)
	}
	if err != nil {
		m.log.Warn("metrics are not written", "file", m.textfile, "error", err)
	}
}

// replace puts a whole new file in the place of path by one rename, so that no
// reader sees half of one. Its folder may be another user's: no link is followed,
// neither on the way nor at the end, and what is at the place is never written to.
func replace(path string, content []byte) error {
	dir, err := beneath.OpenPlain(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(path)
	waiting := "." + name + ".new"              // node_exporter passes it over
	if err := dir.Remove(waiting); err != nil { // of a run that was ended in between
		return err
	}
	if err := dir.Create(beneath.File{Name: waiting, Mode: fileMode, UID: os.Geteuid(), GID: os.Getegid(), Content: content}); err != nil {
		return err
	}
	if err := dir.Rename(waiting, name); err != nil {
		return errors.Join(fmt.Errorf("put metrics in place: %w", err), dir.Remove(waiting))
	}
	return nil
}
