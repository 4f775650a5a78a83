// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"errors"

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
}

// logIn is one attempt as the agent makes it: the client's retries over all
// addresses, and once from the beginning where the server says so.
func (h *host) logIn(ctx context.Context) error {
	err := h.attempt(ctx)
	var failure *bao.Error
	if errors.As(err, &failure) && failure.StartOver() {
		return h.attempt(ctx)
	}
	return err
}

func (h *host) attempt(ctx context.Context) error {
	request, err := h.tpm.Request(role)
	if err != nil {
		return err
	}
	challenge, node, err := h.client.Challenge(ctx, *request)
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

// powerCut is what a host goes through: its TPM counts one more reset, and its
// connections are gone.
func (h *host) powerCut() {
	h.tpm.Reset()
	h.client.Close()
}
