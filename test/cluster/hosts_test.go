// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"encoding/pem"
	"errors"
	"sync"
	"testing"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/internal/bao"
)

// vendor certifies the TPMs of the machines.
type vendor struct{ *attacker.Vendor }

func newVendor(t *testing.T) vendor {
	t.Helper()
	v, err := attacker.NewVendor(attacker.P256)
	check(t, err)
	return vendor{v}
}

func (v vendor) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.Certificate.Raw}))
}

// machine is a host with a TPM in software, which speaks to OpenBao as the agent
// does.
type machine struct {
	name string
	id   attest.TPMID

	mu  sync.Mutex // a TPM does one thing at a time
	tpm *attacker.TPM
}

func (v vendor) machine(t *testing.T, name string) *machine {
	t.Helper()
	tpm, err := attacker.NewTPM(v.Vendor, attacker.P256)
	check(t, err)
	id, err := tpm.ID()
	check(t, err)
	return &machine{name: name, tpm: tpm, id: id}
}

// challenge asks for a challenge by the addresses of the client.
func (m *machine) challenge(ctx context.Context, client *bao.Client, role string) (*attest.Challenge, bao.Node, error) {
	m.mu.Lock()
	request, err := m.tpm.Request(role)
	m.mu.Unlock()
	if err != nil {
		return nil, bao.Node{}, err
	}
	return client.Challenge(ctx, *request)
}

// login answers a challenge of any node at one node.
func (m *machine) login(ctx context.Context, client *bao.Client, c *attest.Challenge, role string, at bao.Node) error {
	request, err := m.answer(c, role, at)
	if err != nil {
		return err
	}
	session, err := client.Login(ctx, at, *request)
	if err == nil && session.Host != m.name {
		err = errors.New(m.name + " got in as " + session.Host)
	}
	return err
}

func (m *machine) answer(c *attest.Challenge, role string, at bao.Node) (*attest.LoginRequest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tpm.Answer(c, attacker.Login{Role: role, Audience: at.Audience})
}

// getIn is a whole conversation, and a second one if the first asks for it:
// what every host does. It tells how many it took.
func (m *machine) getIn(ctx context.Context, client *bao.Client, role string) (conversations int, err error) {
	for conversations = 1; ; conversations++ {
		c, node, err := m.challenge(ctx, client, role)
		if err != nil {
			return conversations, err
		}
		err = m.login(ctx, client, c, role, node)
		var e *bao.Error
		if err == nil || conversations == 2 || !errors.As(err, &e) || !e.StartOver() {
			return conversations, err
		}
	}
}
