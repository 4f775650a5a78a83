// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"

	"funlab.casa/omen/install"
)

// Returned tells what Rollback did.
type Returned struct {
	Generation   int                   `json:"generation"` // the one in use now
	From         int                   `json:"from"`       // the one before that
	Restarted    []string              `json:"restarted"`  // names of services
	Certificates []install.Certificate `json:"certificates"`
}

// Rollback makes the set before the current one current again, restarts what reads
// it and asks what is served. It needs no network. Where that set cannot serve, or
// is not served, the current one stays, or is put back, and the error says why. Certificate
// names the set by one that is in it; "" is Keylime's, or the only one.
func (a *Agent) Rollback(ctx context.Context, certificate string) (returned *Returned, err error) {
	s, err := a.setOf(certificate)
	if err != nil {
		return nil, err
	}
	current, err := s.install.Current()
	if err != nil {
		return nil, at(StepInstall, "", err)
	}
	change, err := s.install.Return(ctx, a.emptyItems(s))
	if err != nil {
		return nil, at(StepInstall, "", err)
	}
	defer func() { err = errors.Join(err, at(StepInstall, "", change.Close())) }()
	returned = &Returned{Generation: change.Generation(), From: current.Generation, Restarted: restarted(s, change)}
	if returned.Certificates, err = serve(ctx, s, change, a.stopwatch()); err != nil {
		return nil, err
	}
	return returned, nil
}
