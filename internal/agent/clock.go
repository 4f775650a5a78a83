// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"
)

// Clock is how far the server's clock is from this host's.
type Clock struct {
	Offset time.Duration `json:"offset_ns"` // the server's minus ours, to about a second
	At     time.Time     `json:"at"`
}

// String says who is behind.
func (c Clock) String() string {
	if c.Offset < 0 {
		return "this host's clock is " + Span(-c.Offset) + " ahead of OpenBao's"
	}
	return "this host's clock is " + Span(c.Offset) + " behind OpenBao's"
}

// clock is what the answers of this process's last conversation said; nil: nothing.
func (a *Agent) clock() *Clock {
	if a.bao == nil {
		return nil
	}
	offset, known := a.bao.ClockOffset()
	if !known {
		return nil
	}
	return &Clock{Offset: offset, At: a.now()}
}

// setRight asks again about a clock that was wrong, so that it is known when it was
// set right: the next renewal may be far away. A good one is not asked about.
func (a *Agent) setRight(ctx context.Context) {
	r := a.recall()
	if r.Clock == nil || r.Clock.Offset.Abs() <= ClockTolerance {
		return
	}
	for _, node := range a.bao.Health(ctx) {
		if node.Err != nil {
			continue
		}
		r = a.recall() // somebody may have renewed meanwhile
		r.Clock = &Clock{Offset: node.ClockOffset, At: a.now()}
		if err := a.keep(recordName, r); err != nil {
			a.log.Warn("status is not written", "error", err)
		}
		return
	}
}
