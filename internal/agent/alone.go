// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"path"
	"slices"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/remedy"
	"funlab.casa/omen/install/rival"
	"funlab.casa/omen/install/service"
)

// Rivals finds who else renews certificates of this host: see package rival. It
// reads files and starts nothing.
func (a *Agent) Rivals(ctx context.Context) ([]rival.Rival, error) { return a.search().Find(ctx) }

// Ours finds what has omen-agent renew here beside its own unit, see package rival.
func (a *Agent) Ours(ctx context.Context) ([]string, error) { return a.search().Ours(ctx) }

// search is where other renewals are looked for.
func (a *Agent) search() rival.Search {
	var folders []string
	for _, s := range a.sets() {
		folders = append(folders, s.folder(), path.Join(install.DefaultStateDir, s.name))
	}
	mounts := []string{"pki_int"} // where the way by hand has them
	for i := range a.config.Certificates {
		if mount := a.config.Certificates[i].Path; mount != "" && !slices.Contains(mounts, mount) {
			mounts = append(mounts, mount)
		}
	}
	return rival.Search{Root: a.install.Root, Folders: folders, Mounts: mounts, Readers: a.config.Keylime.Readers, Active: service.ActiveUnits}
}

// alone refuses while something else that renews is switched on: two renewers
// overwrite each other's certificates, and restart under each other's hands. What is
// switched off is logged.
func (a *Agent) alone(ctx context.Context) error {
	found, err := a.Rivals(ctx)
	if err != nil {
		a.log.Warn("not everything was looked at for other renewals", "error", err)
	}
	for _, r := range found {
		if !r.Active {
			a.log.Warn("another renewal is here, switched off", "what", r.String())
		}
	}
	return at(StepInstall, "", rival.Refusal(found))
}

// WarnOfRivals says at the start of a long wait what will stop the next renewal.
func (a *Agent) WarnOfRivals(ctx context.Context) {
	if err := a.alone(ctx); err != nil {
		a.log.Error("no renewal until this is disabled", append([]any{"error", err}, remedyOf(err)...)...)
	}
}

// remedyOf is the remedy of an error for a log, nothing where none is known.
func remedyOf(err error) []any {
	if hint := remedy.Of(err); hint != "" {
		return []any{"remedy", hint}
	}
	return nil
}
