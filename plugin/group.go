// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"sync"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// maxGroup is how many logins' writes go into one transaction.
const maxGroup = 64

// group writes what logins have learnt of different TPMs in common transactions:
// after a power cut ten thousand hosts each have a new boot to record, and a
// transaction for each would take longer than all the rest of their logins.
type group struct {
	change func(context.Context, logical.Storage, func(logical.Storage) error) error

	mu      sync.Mutex
	running bool
	queue   []*grouped
}

// grouped is what one login wants written.
type grouped struct {
	storage logical.Storage
	writes  []write
	done    chan error
}

// do returns when the writes are stored, or are known not to be. It waits also for
// a host that has gone: the caller's locks must hold until then.
func (g *group) do(s logical.Storage, writes []write) error {
	mine := &grouped{storage: s, writes: writes, done: make(chan error, 1)}
	g.mu.Lock()
	g.queue = append(g.queue, mine)
	if !g.running {
		g.running = true
		go g.run()
	}
	g.mu.Unlock()
	return <-mine.done
}

// run writes group after group until nobody waits.
func (g *group) run() {
	for batch := g.next(); batch != nil; batch = g.next() {
		err := g.write(batch...)
		for _, one := range batch {
			if err == nil || len(batch) == 1 || errors.Is(err, context.DeadlineExceeded) {
				one.done <- err
			} else {
				one.done <- g.write(one) // not for another's fault
			}
		}
	}
}

func (g *group) next() []*grouped {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.queue), maxGroup)
	if n == 0 {
		g.running = false
		return nil
	}
	batch := g.queue[:n:n]
	g.queue = g.queue[n:]
	return batch
}

// write turns a panic into an error: nothing above it would stop it.
func (g *group) write(batch ...*grouped) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = attest.Refuse(attest.RuleInternal, "panic: %v", p)
		}
	}()
	return g.change(context.Background(), batch[0].storage, func(s logical.Storage) error {
		for _, one := range batch {
			for _, do := range one.writes {
				if err := do(context.Background(), s); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
