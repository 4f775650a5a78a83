// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strings"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/install/probe"
	"funlab.casa/omen/internal/config"
)

// rootName is what the root file is listed under among installed certificates.
var rootName = strings.TrimSuffix(keylime.RootFile, ".crt")

// installRoots is a renewal in which nothing is issued: roots are installed, and
// nobody is asked for anything.
func (a *Agent) installRoots(ctx context.Context, w *stopwatch) (*Outcome, error) {
	outcome := &Outcome{Host: a.recall().Host, Spent: w.spent, TPMCommands: w.commands}
	if err := a.deployAll(ctx, nil, outcome, w); err != nil {
		return nil, err
	}
	return outcome, nil
}

// describeRoot is describeCertificate of a table without certificate. It is due
// when another root is installed than the anchor; else nothing will change by
// itself, and it is looked at again in a day.
func (a *Agent) describeRoot(c *config.Certificate, current *install.Installed) Certificate {
	d := Certificate{Certificate: install.Certificate{Name: c.Name}, Profile: c.Profile, Service: c.Serves()}
	if current == nil || len(a.anchors[c.Anchor]) == 0 {
		return d
	}
	anchor := a.anchors[c.Anchor][0]
	for _, installed := range current.Certificates {
		if installed.Name != rootName {
			continue
		}
		d.Certificate = installed
		d.Name = c.Name
		if installed.Serial == probe.Serial(anchor) && installed.NotAfter.Equal(anchor.NotAfter) {
			d.RenewAt = a.now().Add(24 * time.Hour)
		}
	}
	return d
}
