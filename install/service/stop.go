// SPDX-License-Identifier: Apache-2.0

package service

import "context"

// Stop leaves the unit stopped, whatever it was before.
func (u *Unit) Stop(ctx context.Context) error {
	return u.job(ctx, "stop", u.bus.StopUnitContext)
}

// Stop ends what runs of the service and starts nothing.
func (s *Process) Stop(ctx context.Context) error {
	running, err := s.running()
	if err != nil {
		return err
	}
	return s.stop(ctx, running)
}
