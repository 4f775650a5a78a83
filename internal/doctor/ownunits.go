// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"slices"
	"strings"
	"time"

	"funlab.casa/omen/install"
	"funlab.casa/omen/install/service"
	"funlab.casa/omen/install/unitfile"
)

func ownUnitChecks() []Check {
	return []Check{
		{
			Name: "agent-service", Area: AreaInstall, run: checkAgentUnit,
			Asks:   "`omen-agent.service` is enabled, runs, and does not start again and again; or a timer, a service or cron has omen-agent renew",
			Remedy: "systemctl enable --now " + unitfile.Agent,
		},
		{
			Name: "unseal-service", Area: AreaInstall, root: true, run: checkUnsealUnit,
			Asks:   "`omen-agent-unseal.service` is enabled where a key is sealed, and did not fail",
			Remedy: "systemctl enable " + unitfile.Unseal,
		},
		{
			Name: "daemon-reload", Area: AreaInstall, root: true, run: checkReloaded,
			Asks:   "systemd has read the units and agent.toml as they are: order and sandbox follow agent.toml at a daemon-reload only, and of a process that runs at its next start",
			Remedy: afterChange,
		},
	}
}

// ownUnits is what systemd says of our units; neither is there where it does not run.
type ownUnits struct {
	agent, unseal *service.State
	err           error
}

func (p *patient) ownUnits(ctx context.Context) ownUnits {
	return p.units.get(func() (own ownUnits) {
		states, err := p.askUnits(ctx, []string{unitfile.Agent, unitfile.Unseal})
		own.err = err
		if len(states) == 2 {
			own.agent, own.unseal = &states[0], &states[1]
		}
		return own
	})
}

// unseen says why nothing can be said of units, nil where something can.
func (o ownUnits) unseen() []Result {
	switch {
	case o.err != nil:
		return notApplicable("systemd does not answer: %v", o.err)
	case o.agent == nil:
		return notApplicable("systemd does not run here")
	}
	return nil
}

func checkAgentUnit(ctx context.Context, p *patient) []Result {
	own := p.ownUnits(ctx)
	if unseen := own.unseen(); unseen != nil {
		return unseen
	}
	switch u := *own.agent; {
	case u.Load == "not-found" || u.Load == "masked" || u.Load == "loaded" && u.Active == "inactive" && !u.Enabled:
		return p.otherWay(ctx, u)
	case u.Load != "loaded":
		return problem(unitfile.Agent, "systemd-analyze verify "+unitfile.Agent, "systemd cannot use it: %s", u.Load)
	default:
		return runs(u)
	}
}

// otherWay is for a host whose agent is no service: that may be meant.
func (p *patient) otherWay(ctx context.Context, u service.State) []Result {
	ways, err := p.agent.Ours(ctx)
	seen, mend := "it is switched off", ""
	switch u.Load {
	case "not-found":
		seen, mend = "it is not installed", "install the package omen-agent, or let a timer run omen-agent renew"
	case "masked":
		seen, mend = "it is masked", "systemctl unmask "+unitfile.Agent+" && systemctl enable --now "+unitfile.Agent
	}
	switch {
	case len(ways) > 0:
		return ok(unitfile.Agent, "%s; omen-agent is run by %s", seen, strings.Join(ways, ", "))
	case err != nil:
		return warning(unitfile.Agent, mend, "%s, and not everything was looked at for another way: %v", seen, err)
	}
	return warning(unitfile.Agent, mend, "%s, and nothing else has omen-agent renew: certificates last until you do it by hand", seen)
}

// manyRestarts are more than a TPM that comes late, or one bad night, explains.
const manyRestarts = 3

// runs judges a unit that somebody wants to run.
func runs(u service.State) []Result {
	const look = "journalctl -u " + unitfile.Agent + " -n 50"
	switch {
	case u.Sub == "auto-restart":
		return problem(unitfile.Agent, look+" says why", "it ends again and again: %d restarts, the last end: %s", u.Restarts, u.Result)
	case u.Active == "failed":
		return problem(unitfile.Agent, look+" says why; then systemctl restart "+unitfile.Agent, "it has failed: %s", u.Result)
	case u.Active == "inactive":
		return problem(unitfile.Agent, "systemctl start "+unitfile.Agent, "it is enabled, and does not run")
	case !u.Enabled:
		return warning(unitfile.Agent, "systemctl enable "+unitfile.Agent, "it runs, and will not after the next boot: it is not enabled")
	case u.Restarts >= manyRestarts:
		return warning(unitfile.Agent, look+" says why; what is mended is forgotten by systemctl reset-failed "+unitfile.Agent, "it runs, after %d restarts that nobody asked for", u.Restarts)
	case u.Since.IsZero():
		return ok(unitfile.Agent, "%s", u.Active)
	}
	return ok(unitfile.Agent, "enabled, and %s since %s", u.Active, u.Since.Format(time.RFC3339))
}

func checkUnsealUnit(ctx context.Context, p *patient) []Result {
	own := p.ownUnits(ctx)
	if unseen := own.unseen(); unseen != nil {
		return unseen
	}
	if !p.hasSealed(ctx) {
		return notApplicable("no key is sealed")
	}
	switch u := *own.unseal; {
	case u.Load == "not-found":
		return warning(unitfile.Unseal, "install the package omen-agent, or let omen-agent unseal run at boot before the services", "it is not installed, and keys are sealed")
	case u.Load == "masked":
		return warning(unitfile.Unseal, "systemctl unmask "+unitfile.Unseal+" && systemctl enable "+unitfile.Unseal, "it is masked, and keys are sealed")
	case u.Active == "failed":
		return warning(unitfile.Unseal, "journalctl -b -u "+unitfile.Unseal+" says why; then systemctl restart "+unitfile.Unseal, "it failed: %s", u.Result)
	case u.Enabled:
		return ok(unitfile.Unseal, "enabled")
	case own.agent.Enabled:
		return warning(unitfile.Unseal, "", "it is not enabled: after a boot keys are put back by %s, when the network is there", unitfile.Agent)
	}
	return problem(unitfile.Unseal, "", "neither it nor %s is enabled: after a boot services have no keys", unitfile.Agent)
}

// hasSealed reports that a key is sealed, or will be by the first renewal.
func (p *patient) hasSealed(ctx context.Context) bool {
	installed := false
	for _, s := range p.surveyed(ctx) {
		installed = installed || s.Err == nil
		if slices.ContainsFunc(s.Certificates, func(c install.Inspected) bool { return c.Missing == nil && c.KeyPlace == install.KeySealed }) {
			return true
		}
	}
	return !installed && p.seals()
}

func checkReloaded(ctx context.Context, p *patient) []Result {
	own := p.ownUnits(ctx)
	if unseen := own.unseen(); unseen != nil {
		return unseen
	}
	loaded := slices.DeleteFunc([]service.State{*own.agent, *own.unseal}, func(u service.State) bool { return u.Load != "loaded" })
	return eachOf(loaded, "no unit of ours is loaded", func(u service.State) []Result {
		switch {
		case u.Stale && u.Name == unitfile.Unseal:
			return warning(u.Name, "systemctl daemon-reload", "it, or agent.toml, is newer than what systemd has read")
		case u.Stale:
			return warning(u.Name, "", "it, or agent.toml, is newer than what systemd has read: what agent.toml names now may be closed to it")
		}
		if closed := closedTo(u); len(closed) > 0 {
			return warning(u.Name, "systemctl restart "+u.Name, "it was started before %s was opened to it: it cannot write there", strings.Join(closed, ", "))
		}
		return ok(u.Name, "as systemd has read it")
	})
}
