// SPDX-License-Identifier: Apache-2.0

package bao

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// pass is one call on its way over the addresses: each is asked in turn, and
// again after a jittered pause, until one answers for good or time is up.
type pass struct {
	timing   timing
	nodes    []Node               // still worth asking
	notUntil map[string]time.Time // by address: spacing and Retry-After
	failures map[string]*Error    // by address: the last failure
	deadline time.Time
}

// overNodes calls attempt with one node after the other, in passes, and returns
// the first result. An error that no other node would answer differently ends
// it; a node that is not our OpenBao is not asked again.
func overNodes[T any](ctx context.Context, t timing, nodes []Node,
	attempt func(context.Context, Node) (T, *Error),
) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, t.budget)
	defer cancel()
	p := &pass{
		timing: t, nodes: append([]Node(nil), nodes...), deadline: time.Now().Add(t.budget),
		notUntil: map[string]time.Time{}, failures: map[string]*Error{},
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = t.spacing, 5*t.spacing
	pause.RandomizationFactor = 1 // full jitter
	result, err := backoff.Retry(ctx, func() (T, error) { return once(ctx, p, attempt) },
		backoff.WithBackOff(pause), backoff.WithMaxElapsedTime(t.budget))
	if err == nil {
		return result, nil
	}
	return result, p.verdict(ctx, nodes, err)
}

// once asks every node whose time has come.
func once[T any](ctx context.Context, p *pass, attempt func(context.Context, Node) (T, *Error)) (T, error) {
	var none T
	for _, node := range append([]Node(nil), p.nodes...) {
		if time.Now().Before(p.notUntil[node.Address]) {
			continue
		}
		p.notUntil[node.Address] = time.Now().Add(p.timing.spacing)
		bounded, cancel := context.WithTimeout(ctx, p.timing.attempt)
		result, err := attempt(bounded, node)
		cancel()
		if err == nil {
			return result, nil
		}
		if final := p.failed(ctx, node, err); final {
			return none, backoff.Permanent(err)
		}
	}
	if len(p.nodes) == 0 || p.allTooLate() {
		return none, backoff.Permanent(errNoNodeLeft)
	}
	return none, errNoNodeLeft
}

// errNoNodeLeft ends a pass without an answer; verdict replaces it.
var errNoNodeLeft = errors.New("no address answered")

// failed records err and reports whether asking on is useless. Being cut short
// by the end of the budget says less than what the node answered before.
func (p *pass) failed(ctx context.Context, node Node, err *Error) (final bool) {
	if p.failures[node.Address] == nil || ctx.Err() == nil {
		p.failures[node.Address] = err
	}
	switch {
	case err.elsewhere():
		p.nodes = without(p.nodes, node)
	case !err.Retryable():
		return true
	case err.retryAfter > p.timing.spacing:
		p.notUntil[node.Address] = time.Now().Add(err.retryAfter)
	}
	return false
}

func without(nodes []Node, gone Node) []Node {
	var rest []Node
	for _, node := range nodes {
		if node != gone {
			rest = append(rest, node)
		}
	}
	return rest
}

// allTooLate reports whether no node may be asked again before time is up.
func (p *pass) allTooLate() bool {
	for _, node := range p.nodes {
		if p.notUntil[node.Address].Before(p.deadline) {
			return false
		}
	}
	return true
}

// telling orders kinds by how much they tell a person about what to change.
var telling = []Kind{KindUnknownCA, KindCertificate, KindSealed, KindGarbage, KindRedirect, KindFailing, KindBusy, KindUnreachable}

// verdict picks the error to return: the final one, or of the last failure of
// each node the one that tells most, with the others beside it.
func (p *pass) verdict(ctx context.Context, nodes []Node, err error) error {
	var final *Error
	if errors.As(err, &final) {
		return final
	}
	var best *Error
	for _, kind := range telling {
		for _, node := range nodes {
			failure := p.failures[node.Address]
			if failure == nil || failure.Kind != kind {
				continue
			}
			if best == nil {
				best = failure
				continue
			}
			best.Others = append(best.Others, node.Address+": "+string(kind))
		}
	}
	switch {
	case best == nil:
		return err
	case errors.Is(ctx.Err(), context.Canceled):
		return &Error{Op: best.Op, Address: best.Address, Kind: KindCancelled, Err: context.Canceled,
			Message: "while it was " + string(best.Kind)}
	}
	return best
}
