// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/beneath"
)

// Uninstall puts the host back as it was found before the first installation, sets of
// earlier configurations included. The configuration, and what Forget takes away, stay.
// What was done is returned with an error too.
func (a *Agent) Uninstall(ctx context.Context) (*install.Uninstalled, error) {
	orphans, unread := a.orphans()
	all := &install.Uninstalled{}
	var folders []string
	err := each(append(a.sets(), orphans...), func(s set) error {
		done, err := s.install.Uninstall(ctx, a.emptyItems(s))
		if done != nil {
			folders = append(folders, s.folder()+": "+done.Folder)
			all.Folder = done.Folder
			all.Restarted, all.Stopped = append(all.Restarted, done.Restarted...), append(all.Stopped, done.Stopped...)
			all.Warnings = append(all.Warnings, done.Warnings...)
		}
		if done != nil && s.general() && len(s.certs) == 0 {
			all.Warnings = append(all.Warnings, "what reads "+s.folder()+" is not told: the configuration does not name it any more")
		}
		return err
	})
	err = errors.Join(err, unread)
	if err := a.dropMetrics(); err != nil {
		all.Warnings = append(all.Warnings, "the metrics are still shown: "+err.Error())
	}
	if len(folders) == 0 {
		return nil, at(StepInstall, "", err)
	}
	if len(folders) > 1 {
		all.Folder = strings.Join(folders, ", ")
	}
	return all, at(StepInstall, "", err)
}

func (s set) folder() string {
	if s.general() {
		return s.install.Set.Folder
	}
	return install.KeylimeSet.Folder
}

// dropMetrics removes the file that would be shown for ever. Its folder may be another
// user's, who must not choose what is removed.
func (a *Agent) dropMetrics() error {
	if a.config.Metrics.Textfile == "" {
		return nil
	}
	dir, err := beneath.OpenPlain(filepath.Join(a.root(), filepath.Dir(a.config.Metrics.Textfile)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Remove(filepath.Base(a.config.Metrics.Textfile))
}
