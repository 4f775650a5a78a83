// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// rests is until when addresses that failed are left alone, and why, for all
// calls of one client.
type rests struct {
	mutex sync.Mutex
	of    map[string]rest // by address
}

type rest struct {
	until   time.Time
	failure *Error
}

func (r *rests) get(node Node) rest {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.of[node.Address]
}

func (r *rests) set(node Node, until time.Time, failure *Error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.of == nil {
		r.of = map[string]rest{}
	}
	r.of[node.Address] = rest{until, failure}
}

// pass is one call on its way over the addresses: each is asked in turn, and
// again when it has rested, until one answers for good or time is up.
type pass struct {
	op       string
	alone    bool          // no address is asked beside another
	attempt  time.Duration // one request
	timing   timing
	rests    *rests
	all      []Node               // in the order in which they are asked
	left     []Node               // still worth asking
	started  map[string]time.Time // by address: the last request
	busy     map[string]bool      // by address: not answered yet
	failures map[string]*Error    // by address: the last failure
	phase    float64              // 0 to 1, so that hosts do not ask in step
	latest   *asking              // the request that was started last
	deadline time.Time            // no request starts later
}

func (c *Client) newPass(op string, nodes []Node) *pass {
	return &pass{
		op: op, attempt: c.timing.of(op), timing: c.timing, rests: c.rests, all: nodes, left: slices.Clone(nodes), phase: rand.Float64(), //nolint:gosec // spreads requests, hides nothing
		started: map[string]time.Time{}, busy: map[string]bool{}, failures: map[string]*Error{},
		deadline: time.Now().Add(c.timing.budget),
	}
}

// reply is what became of one request.
type reply[T any] struct {
	node   Node
	result T
	err    *Error
}

// overNodes calls attempt with one node after the other and returns the first
// result. An error that no other node would answer differently ends it; a node
// that is not our OpenBao is not asked again. A node that is silent for longer than
// patience does not keep the others waiting: the next one is asked beside it. A
// request that began in time may end later than the budget.
func overNodes[T any](ctx context.Context, p *pass, attempt func(context.Context, Node) (T, *Error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan reply[T], len(p.all)) // a node has one request at a time
	ask := func(a *asking) {
		bounded, cancel := context.WithTimeout(ctx, p.attempt)
		defer cancel()
		result, err := attempt(a.watch(bounded), a.node)
		replies <- reply[T]{a.node, result, err}
	}
	for {
		wait, worth := p.start(ctx, ask)
		if !worth {
			var none T
			return none, p.verdict(ctx)
		}
		r, answered := await(ctx, replies, wait)
		if !answered {
			continue
		}
		if r.err == nil {
			return r.result, nil
		}
		if p.failed(ctx, r.node, r.err) {
			return r.result, r.err
		}
	}
}

// await waits for a reply, at most wait. When ctx is over, a reply is on its way.
func await[T any](ctx context.Context, replies <-chan reply[T], wait time.Duration) (r reply[T], answered bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r = <-replies:
		return r, true
	case <-timer.C:
	case <-ctx.Done():
		select { // a node that is asked answers at once: its context is over too
		case r = <-replies:
			return r, true
		case <-time.After(10 * time.Millisecond):
		}
	}
	return r, false
}

// start asks the next node whose time has come, if one may be asked now. It
// returns when to call again without a reply, and false when there is nothing to
// wait for any more.
func (p *pass) start(ctx context.Context, ask func(*asking)) (wait time.Duration, worth bool) {
	if ctx.Err() != nil {
		return 0, len(p.busy) > 0
	}
	now := time.Now()
	next, due := p.next(now)
	if len(p.busy) > 0 {
		due = later(due, p.nextBeside())
	}
	switch {
	case next == nil || due.After(p.deadline) || now.After(p.deadline):
		return p.attempt, len(p.busy) > 0
	case due.After(now):
		return due.Sub(now), true
	}
	p.busy[next.Address], p.started[next.Address] = true, now
	p.latest = &asking{node: *next, began: now}
	go ask(p.latest)
	return p.timing.patience, true
}

// nextBeside is when a node may be asked although another has not answered. Hosts
// whose server is slow do not all lose patience in the same moment.
func (p *pass) nextBeside() time.Time {
	if p.alone {
		return p.deadline.Add(time.Nanosecond)
	}
	if !p.latest.seen.Load() {
		return p.latest.began.Add(p.timing.patience)
	}
	return p.latest.began.Add(time.Duration(float64(p.timing.slowness) * (1 + p.phase/2)))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// next is the node to ask next, nil without one, and from when on it may be
// asked. Of those that may be asked now it is the one that was not for longest, so
// that none which takes all of its time keeps the others from being asked.
func (p *pass) next(now time.Time) (next *Node, due time.Time) {
	for i, node := range p.left {
		if p.busy[node.Address] {
			continue
		}
		from := later(p.rests.get(node).until, now)
		if next == nil || from.Before(due) || from.Equal(due) && p.started[node.Address].Before(p.started[next.Address]) {
			next, due = &p.left[i], from
		}
	}
	return next, due
}

// failed records err and reports whether asking on is useless. Being cut short
// by the caller says less than what the node answered before.
func (p *pass) failed(ctx context.Context, node Node, err *Error) (final bool) {
	first := p.failures[node.Address] == nil
	delete(p.busy, node.Address)
	if first || ctx.Err() == nil {
		p.failures[node.Address] = err
	}
	switch {
	case err.elsewhere():
		p.left = slices.DeleteFunc(p.left, func(n Node) bool { return n == node })
	case !err.Retryable():
		return true
	default:
		p.rests.set(node, p.again(node, first, err.RetryAfter), err)
	}
	return false
}

// again is when a node that failed may be asked again: when the server said, and
// not before spacing. After the first failure the addresses are spread evenly
// over one spacing and stay so. Then a cluster that has a leader again is noticed
// at one of n addresses after spacing/n.
func (p *pass) again(node Node, first bool, retryAfter time.Duration) time.Time {
	at := p.started[node.Address].Add(p.timing.spacing)
	if first {
		share := (float64(slices.Index(p.all, node)) + p.phase) / float64(len(p.all))
		at = at.Add(time.Duration(share * float64(p.timing.spacing)))
	}
	if asked := time.Now().Add(retryAfter); retryAfter > 0 && asked.After(at) {
		return asked
	}
	return at
}

// telling orders kinds by how much they tell a person about what to change.
var telling = []Kind{KindUnknownCA, KindCertificate, KindSealed, KindGarbage, KindRedirect, KindFailing, KindBusy, KindUnreachable}

// verdict picks the error to return: of the last failure of each node the one
// that tells most, with the others beside it.
func (p *pass) verdict(ctx context.Context) error {
	var best *Error
	for _, kind := range telling {
		for _, node := range p.all {
			failure := p.failures[node.Address]
			if failure == nil { // it was not asked, because of what it answered before
				failure = p.rests.get(node).failure
			}
			if failure == nil || failure.Kind != kind {
				continue
			}
			if best == nil {
				copied := *failure // a call that was before ours may hold it too
				copied.Op, best = p.op, &copied
				continue
			}
			best.Others = append(best.Others, node.Address+": "+string(kind))
		}
	}
	if best == nil { // time was up before anybody was asked
		best = &Error{Op: p.op, Address: p.all[0].Address, Kind: KindUnreachable, Err: context.DeadlineExceeded, Message: "no time left to ask"}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{Op: best.Op, Address: best.Address, Kind: KindCancelled, Err: context.Canceled,
			Message: "while it was " + string(best.Kind)}
	}
	return best
}
