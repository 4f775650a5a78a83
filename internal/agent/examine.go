// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/host"
	"funlab.casa/omen/install"
	"funlab.casa/omen/install/rival"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/issuer"
)

// Examine makes an agent that only looks at a host, of a configuration that may be
// sound in part only (config.Sound): it keeps nothing, in the TPM or on the disk. The
// host's files are below root; "" is "/". The faults are of files that the
// configuration names; what they are about is not there to be asked.
func Examine(c *config.Config, root string, log *slog.Logger) (a *Agent, faults []error) {
	a = &Agent{
		config: c, install: &install.Installer{Root: root, Log: log},
		state: filepath.Join(root, install.DefaultStateDir, stateFolder), log: log, now: time.Now,
	}
	var err error
	if a.tpm, err = hostConfig(c.TPM); err != nil {
		faults = append(faults, err)
	}
	a.tpm.StateDir, a.tpm.LookOnly = a.state, true
	a.install.Sign, a.install.Open = a.signResident, a.openSealed
	if err := a.readTrust(); err != nil {
		faults = append(faults, err)
	}
	if len(c.OpenBao.Addresses) == 0 || c.OpenBao.CAFile == "" {
		return a, faults // said of the configuration already
	}
	if a.bao, err = openBao(c.OpenBao); err != nil {
		a.bao = nil
		faults = append(faults, err)
	}
	return a, faults
}

// TPM is how this agent opens the TPM.
func (a *Agent) TPM() host.Config { return a.tpm }

// OpenBao is the client of the configured servers; nil where they cannot be asked.
func (a *Agent) OpenBao() *bao.Client { return a.bao }

// TryLogin proves this host as a renewal does, over no key, or over one that is
// thrown away where the configuration keeps keys in the TPM. Nothing is signed. The
// session's token ends by itself within minutes; it is the caller's to forget. The
// TPM ID is that of the request, "" where none was made.
func (a *Agent) TryLogin(ctx context.Context) (session *bao.Session, id attest.TPMID, err error) {
	w := newStopwatch()
	w.begin(StepTPM)
	prover, err := a.openTPM(ctx, w.count)
	if err != nil {
		return nil, "", at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	var orders []*order
	if slices.ContainsFunc(a.config.Certificates, keptInTPM) {
		orders = []*order{{cert: &config.Certificate{Name: "throw-away"}, mode: issuer.ModeResident}}
	}
	if err := a.makeKeys(ctx, prover, orders); err != nil {
		return nil, prover.TPMID(), err
	}
	session, err = a.prove(ctx, prover, orders, nil, w)
	return session, prover.TPMID(), err
}

func keptInTPM(c config.Certificate) bool {
	return c.Key == string(issuer.ModeResident) || c.Key == string(issuer.ModeAuto) && c.NoTPMKey() == ""
}

// Surveyed is what was found of one set of certificates.
type Surveyed struct {
	Set          string
	Folder       string // the link that services read through
	Survey       install.Survey
	Certificates []install.Inspected
	Damage       []install.Damage
	Err          error // the current set cannot be read; install.ErrNotInstalled where there is none
}

// Survey looks at every set of the configuration: its services, Keylime's settings,
// the files on the disk.
func (a *Agent) Survey(ctx context.Context) []Surveyed {
	var all []Surveyed
	for _, s := range a.sets() {
		if len(s.certs) == 0 {
			continue
		}
		items := a.emptyItems(s)
		one := Surveyed{Set: s.name, Folder: s.folder(), Survey: s.install.Survey(ctx, items)}
		one.Certificates, one.Err = s.install.Inspect(items)
		if one.Err == nil {
			one.Damage, one.Err = s.install.Damage()
		}
		all = append(all, one)
	}
	return all
}

// Served asks every configured service whether what is installed is what is served,
// and nothing about agents elsewhere: [Agent.Verify] does, and may help one.
func (a *Agent) Served(ctx context.Context) []install.Finding {
	var findings []install.Finding
	for _, s := range a.sets() {
		if len(s.certs) > 0 {
			findings = append(findings, s.install.Verify(ctx, a.emptyItems(s))...)
		}
	}
	return findings
}

// Tokens finds static tokens on this host, see package rival.
func (a *Agent) Tokens(ctx context.Context) ([]rival.Token, error) { return a.search().Tokens(ctx) }

// Anchors are the roots in a file that the configuration names as an anchor, as they
// were read last.
func (a *Agent) Anchors(file string) []*x509.Certificate { return a.anchors[file] }
