// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"syscall"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/config"
	"funlab.casa/omen/internal/daemon"
)

type runCommand struct{}

// Help is the command's manual.
func (*runCommand) Help() string {
	return `Keeps the certificates of this host, for ever: it renews two thirds through their lifetime, hosts spread over a
twelfth of it; earlier when the server wants it, and when the configuration, the CAs or the installed files have
changed, or a service runs with older certificates. It puts sealed keys back, and looks after everything else every
ten minutes. After an attempt that failed it waits, longer each time up to half an hour; after a refusal that only an
operator can change, an hour. It never makes more than one attempt a minute.

Beside that it keeps the tokens of [[sink]] fresh, and serves [workload_api]. Nothing of these stops a renewal.

SIGHUP has it read agent.toml again; one with an error in it is told, and the one before stays. SIGTERM ends it: an
installation in flight is finished, or taken back.

Under systemd (Type=notify) the services that are ordered after it start when their certificates are in place, or
[boot] hold later.`
}

// Run keeps the certificates until it is told to stop.
func (*runCommand) Run(j *job) error {
	c, err := config.Load(j.cli.Config)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	observer := j.observer(c.Metrics)
	systemd := &daemon.Systemd{Log: j.log}
	go systemd.Watch(j.ctx)
	b := j.beside()
	defer b.run(j.ctx)()
	d := daemon.Daemon{
		Load: j.hosts(observer, b), Hold: c.Boot.Hold.Duration, Reload: hup,
		Clock: daemon.WallClock{}, Supervisor: systemd, Log: j.log, Hint: hint, Fatal: watchTPM(c.TPM.Device).came,
	}
	return d.Run(j.ctx)
}

// hosts gives this host as it is configured at each call. It goes on where the one before
// stopped; who observes it stays, and what runs beside.
func (j *job) hosts(observer agent.Observer, b *beside) func() (daemon.Host, error) {
	var before *agent.Agent
	return func() (daemon.Host, error) {
		a, err := j.agent()
		if err != nil {
			return nil, err
		}
		if before != nil {
			a.Succeed(before)
		}
		before, a.Observer = a, observer
		b.use(a)
		a.WarnOfRivals(j.ctx)
		return a, nil
	}
}

var _ daemon.Host = (*agent.Agent)(nil)
