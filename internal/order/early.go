// SPDX-License-Identifier: Apache-2.0

package order

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"funlab.casa/omen/install/unitfile"
	"funlab.casa/omen/internal/config"
)

// Early is a unit that reads certificates and is itself needed for what the agent waits
// for, as the network is. An order in a ring systemd breaks by leaving a unit out of
// the boot.
type Early struct {
	Unit string
	Way  []string // from it to the agent
}

// String says so.
func (e Early) String() string {
	return fmt.Sprintf("unit %s does not wait for the agent, which starts after it: %s", e.Unit, strings.Join(e.Way, ", "))
}

// FindEarly finds them among the units of a configuration, by the unit files below root.
func FindEarly(c *config.Config, root string) []Early {
	p, _ := makePlan(c, func(string) bool { return false })
	return p.findEarly(readSequence(root))
}

func (p *plan) findEarly(s *sequence) (early []Early) {
	for _, unit := range p.before {
		if way := s.way(unit, unitfile.Agent); way != nil {
			early = append(early, Early{unit, way})
		}
	}
	return early
}

// sortOut takes early units out of the order. For the unsealing, which needs no network,
// all but the earliest can wait.
func (p *plan) sortOut(s *sequence) error {
	var errs []error
	p.early = p.findEarly(s)
	for _, e := range p.early {
		errs = append(errs, errors.New(e.String()))
		if s.way(e.Unit, unitfile.Unseal) != nil {
			p.before = slices.DeleteFunc(p.before, func(unit string) bool { return unit == e.Unit })
		}
	}
	return errors.Join(errs...)
}
