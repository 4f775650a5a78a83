// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"funlab.casa/omen/install"
	"funlab.casa/omen/internal/agent"
)

type rollbackCommand struct {
	Certificate string `help:"Go back in the set of this certificate; without it in Keylime's, or in the only one." placeholder:"NAME"`
}

// Help is the command's manual.
func (*rollbackCommand) Help() string {
	return `The set before the current one becomes current again, with the configuration that went with it; the services
that read it restart, and are asked whether they serve it. After an installation that was interrupted before it was
proven, that is the last proven set; before the first set of ours it is what people had set up.

The set is judged first. Where there is none before, where a certificate in it has expired, does not fit its key or
was changed, nothing changes and the error says why. Where it is not served, the set that was current is put back.

Stop omen-agent run first: it renews again as soon as a renewal is due. No network is needed; keys that are sealed
need the TPM.`
}

// Run goes back to the generation before.
func (r *rollbackCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	end := j.progress(a)
	returned, err := a.Rollback(j.ctx, r.Certificate)
	if end(); err != nil {
		return err
	}
	return show(j, returned, returnedText)
}

func returnedText(w io.Writer, r *agent.Returned) {
	fmt.Fprintf(w, "generation\t%d\tback from %d\n", r.Generation, r.From)
	for _, c := range r.Certificates {
		fmt.Fprintf(w, "certificate\t%s\tserial %s\tuntil %s\n", c.Name, c.Serial, when(c.NotAfter))
	}
	fmt.Fprintf(w, "restarted\t%s\n", list(r.Restarted))
}

type uninstallCommand struct{}

// Help is the command's manual.
func (*uninstallCommand) Help() string {
	return `Puts this host back as it was found at the first installation: the folder with the certificates, byte for
byte with its modes and owners, or nothing where there was nothing; the configuration of Keylime without our drop-ins
and settings; services that ran restart, those that did not are stopped. All sets and keys of ours are removed.

agent.toml stays, and so does what omen-agent knows of the TPM: omen-agent forget removes that. OpenBao is not told.
The command can be given again when it was interrupted. Stop omen-agent run first.`
}

// Run puts the host back. What was done is shown whether or not all of it
// succeeded.
func (*uninstallCommand) Run(j *job) error {
	a, err := j.agent()
	if err != nil {
		return err
	}
	done, failed := a.Uninstall(j.ctx)
	if done != nil {
		if err := show(j, done, uninstalledText); err != nil {
			return err
		}
	}
	return failed
}

func uninstalledText(w io.Writer, u *install.Uninstalled) {
	fmt.Fprintf(w, "folder\t%s\n", u.Folder)
	fmt.Fprintf(w, "restarted\t%s\n", list(u.Restarted))
	if len(u.Stopped) > 0 {
		fmt.Fprintf(w, "stopped\t%s\n", list(u.Stopped))
	}
	for _, warning := range u.Warnings {
		fmt.Fprintf(w, "warning\t%s\n", printable(warning))
	}
}
