// SPDX-License-Identifier: Apache-2.0

package agent

import "context"

// behind reports whether a service runs with certificates from before the installed
// set: what it has in memory may end before anything on the disk is due. A renewal
// restarts it.
func (a *Agent) behind(ctx context.Context) bool {
	var services []string
	for _, s := range a.sets() {
		found, err := s.install.Behind(ctx, a.emptyItems(s))
		if err != nil {
			continue // nothing is installed; or the renewal will say what is wrong
		}
		services = append(services, found...)
	}
	if len(services) > 0 {
		a.log.Warn("services run with older certificates than are installed; renewing now", "services", services)
	}
	return len(services) > 0
}
