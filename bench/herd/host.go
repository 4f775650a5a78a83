// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/internal/bao"
)

const (
	role = "bench"
	path = "auth/tpm"
)

// A host is one machine: its TPM and its client of the cluster.
type host struct {
	name   string
	tpm    *attacker.TPM
	client *bao.Client
	wires  chan struct{} // of all hosts together
}

// maxConnecting is how many hosts make their request and its connection at once.
// One process is not ten thousand computers: if it had as many TLS handshakes in
// work, each host would take its own slowness for the server's. What a host waits
// for here counts, and how many have asked and wait for an answer is not bounded.
const maxConnecting = 256

// powerCut is what a host goes through: its TPM counts one more reset, and its
// connections are gone.
func (h *host) powerCut() {
	h.tpm.Reset()
	h.client.Close()
}

// A course is how a host got in: how often it began, and what the server had
// against it.
type course struct {
	attempts int      // of the agent: the first, and those after a pause
	over     int      // conversations that were begun again within an attempt
	answered []string // refusals and HTTP errors that a call ended with
	silent   []string // calls that ended without an answer
}

// getIn attempts until the host is in or ctx is over. The agent waits for a
// minute or more between attempts, which would be kinder.
func (h *host) getIn(ctx context.Context, c *course) error {
	for {
		c.attempts++
		err := h.attempt(ctx, c)
		if err == nil || ctx.Err() != nil {
			return err
		}
		pause := time.Duration((5 + 10*rand.Float64()) * float64(time.Second)) //nolint:gosec // spreads requests, hides nothing
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// patience is the agent's: how long a login is begun again at a cluster whose
// nodes come and go.
const patience = 30 * time.Second

// attempt is one attempt as the agent makes it. It starts over for each rule that
// asks for it once, and for half a minute where a login got no answer.
func (h *host) attempt(ctx context.Context, c *course) error {
	said := map[attest.Rule]bool{}
	var until time.Time
	for {
		err := h.converse(ctx)
		var e *bao.Error
		if !errors.As(err, &e) || ctx.Err() != nil {
			return err // in, or the measurement is over
		}
		c.note(e)
		switch {
		case !e.StartOver():
			return err
		case e.Kind == bao.KindRefused:
			if said[e.Rule] {
				return err
			}
			said[e.Rule] = true
		case until.IsZero():
			until = time.Now().Add(patience)
		case time.Now().After(until):
			return err
		}
		c.over++
	}
}

// note keeps what a call ended with.
func (c *course) note(e *bao.Error) {
	if e.Status != 0 {
		c.answered = append(c.answered, fmt.Sprintf("%s: %s (HTTP %d) %s", e.Op, e.Kind, e.Status, e.Rule))
		return
	}
	cause := e.Message[strings.LastIndex(e.Message, ": ")+1:] // without the addresses
	c.silent = append(c.silent, e.Op+": "+strings.TrimSpace(cause))
}

func (h *host) converse(ctx context.Context) error {
	challenge, node, err := h.challenge(ctx)
	if err != nil {
		return err
	}
	login, err := h.tpm.Answer(challenge, attacker.Login{Role: role, Audience: node.Audience})
	if err != nil {
		return err
	}
	_, err = h.client.Login(ctx, node, *login)
	return err
}

// challenge gives its place back as soon as the host is connected.
func (h *host) challenge(ctx context.Context) (*attest.Challenge, bao.Node, error) {
	h.wires <- struct{}{}
	release := sync.OnceFunc(func() { <-h.wires })
	defer release()
	request, err := h.tpm.Request(role)
	if err != nil {
		return nil, bao.Node{}, err
	}
	return h.client.Challenge(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { release() },
	}), *request)
}
