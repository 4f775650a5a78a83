// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"funlab.casa/omen/internal/agent"
	"funlab.casa/omen/internal/daemon"
	"funlab.casa/omen/internal/workload"
)

// beside is what the daemon does for other programs. Nothing of it stops a renewal.
type beside struct {
	sinks *daemon.Sinks
	api   *workload.Endpoint
}

func (j *job) beside() *beside {
	return &beside{sinks: daemon.NewSinks(daemon.WallClock{}, j.log, hint), api: workload.NewEndpoint(j.log)}
}

// use goes on with another configuration.
func (b *beside) use(a *agent.Agent) {
	b.sinks.Use(a)
	b.api.Use(a.WorkloadAPI())
}

// run does it until ctx ends, or the end that it returns is called, which waits for it.
func (b *beside) run(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var ended sync.WaitGroup
	ended.Go(func() { b.sinks.Run(ctx) })
	ended.Go(func() { b.api.Run(ctx) })
	return func() { cancel(); ended.Wait() }
}

var _ daemon.Tokens = (*agent.Agent)(nil)
