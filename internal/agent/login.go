// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"

	"funlab.casa/omen/internal/bao"
)

// Login proves this host and gets a token of a role, for another program. It names no
// keys: what is signed by that token nobody has vouched for.
func (a *Agent) Login(ctx context.Context, role string) (session *bao.Session, err error) {
	end, err := a.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	w := newStopwatch()
	prover, err := a.openTPM(ctx, w.count)
	if err != nil {
		return nil, at(StepTPM, "", err)
	}
	defer func() { err = errors.Join(err, at(StepTPM, "", prover.Close())) }()
	p := &proof{agent: a, role: role, prover: prover, watch: w, enrolment: a.enrolment(nil)}
	return p.run(ctx, nil)
}
