// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"slices"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// findHost finds the host of a proven TPM, or makes it one as the role says. In
// this order, each with the rule that refuses:
//
//   - a record lists the TPM ID, as the one that logs in and not as a reserved one
//     (tpm-taken), and a ticket that comes along is the one it spent (ticket)
//   - neither the TPM nor its EK certificate was given up by a host (host-disabled)
//   - an endorsement key without certificate is listed, or nobody (ek-certificate)
//   - a record lists the EK certificate
//   - the role's way in: nobody else (host-unknown), a ticket (ticket, name-taken),
//     the pending queue (pending)
func (b *backend) findHost(ctx context.Context, rd reader, p proof, r *role) (*admission, error) {
	id := p.challenge.tpmID()
	a, err := b.listed(ctx, rd, p, tpmPrefix+string(id))
	if err != nil || a != nil {
		return a, err
	}
	claims := p.claims()
	t, stone, err := buried(ctx, rd, claims...)
	if err != nil {
		return nil, err
	}
	if t != nil {
		return nil, attest.Refuse(attest.RuleHostDisabled, "%s was %s: tombstone/%s keeps %s out", stone, t.why(), stone, id)
	}
	if p.challenge.class == attest.ClassUncertified {
		return nil, attest.Refuse(attest.RuleEKCertificate, "no host lists %s, which nobody certified", id)
	}
	for _, key := range claims[1:] {
		if a, err := b.bind(ctx, rd, p, key); err != nil || a != nil {
			return a, err
		}
	}
	switch r.WayIn {
	case byTicket:
		return b.redeem(ctx, rd, p)
	case byPending:
		return b.queue(ctx, rd, p)
	default:
		return nil, attest.Refuse(attest.RuleHostUnknown, "no host has %s", id)
	}
}

// claims are the places in the indexes that a proven TPM can be found by, its TPM
// ID first.
func (p proof) claims() []string {
	keys := []string{tpmPrefix + string(p.challenge.tpmID())}
	if p.challenge.class == attest.ClassUncertified {
		return keys
	}
	return append(keys,
		certPrefix+hex.EncodeToString(p.challenge.ekCertificate[:]),
		serialPrefix+hex.EncodeToString(p.challenge.issuerSerial[:]))
}

// listed is the host whose record lists the TPM ID, or nil.
func (b *backend) listed(ctx context.Context, rd reader, p proof, key string) (*admission, error) {
	name, h, err := ownerOf(ctx, rd, key)
	if err != nil || h == nil {
		return nil, err
	}
	id := p.challenge.tpmID()
	if !slices.Contains(h.TPMIDs, id) {
		return nil, attest.Refuse(attest.RuleHostUnknown, "index names host %s for %s, its record does not", name, id)
	}
	if h.TPMIDs[0] != id {
		return nil, attest.Refuse(attest.RuleTPMTaken, "%s is reserved: host %s logs in with %s", id, name, h.TPMIDs[0])
	}
	return &admission{host: name, record: h}, b.checkSpent(ctx, rd, p)
}

// bind gives a host that was listed by its EK certificate the TPM ID that its
// first login proves. Later logins find it by that.
func (b *backend) bind(ctx context.Context, rd reader, p proof, key string) (*admission, error) {
	name, h, err := ownerOf(ctx, rd, key)
	if err != nil || h == nil {
		return nil, err
	}
	if len(h.TPMIDs) > 0 {
		return nil, attest.Refuse(attest.RuleTPMTaken, "host %s has %s already", name, h.TPMIDs[0])
	}
	if err := b.checkSpent(ctx, rd, p); err != nil {
		return nil, err
	}
	bound := *h
	bound.TPMIDs = []attest.TPMID{p.challenge.tpmID()}
	a := &admission{host: name, record: &bound, enrols: true}
	a.change(func(ctx context.Context, s logical.Storage) error {
		return b.putHost(ctx, &edit{Storage: s}, name, h, &bound, "")
	})
	return a, nil
}

// ownerOf is the host that has a place in an index; nil when none has.
func ownerOf(ctx context.Context, rd reader, key string) (string, *host, error) {
	o, err := get[owner](ctx, rd, key)
	if err != nil || o == nil {
		return "", nil, err
	}
	h, err := get[host](ctx, rd, hostPrefix+o.Host)
	if err != nil {
		return "", nil, err
	}
	if h == nil {
		return "", nil, attest.Refuse(attest.RuleHostUnknown, "index names host %s, which has no record", o.Host)
	}
	return o.Host, h, nil
}
