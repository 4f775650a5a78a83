// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// ticket lets one TPM become one host, once. The ticket itself is not stored.
type ticket struct {
	Host    string       `json:"host"`
	Role    string       `json:"role"`  // of the login that spends it
	Roles   []string     `json:"roles"` // of the host it makes
	TPMID   attest.TPMID `json:"tpm_id,omitempty"`
	Expires time.Time    `json:"expires"`
	SpentBy attest.TPMID `json:"spent_by,omitempty"`
	SpentAt time.Time    `json:"spent_at,omitzero"`
}

// Lifetimes of tickets.
const (
	defaultTicketTTL = time.Hour
	maxTicketTTL     = 24 * time.Hour
	// keepSpent is how long a spent ticket is kept at least: who shows it again is
	// told from who spent it.
	keepSpent = 30 * 24 * time.Hour
)

// stale reports whether a ticket has nothing to say any more. A spent one is kept
// while its host is there with the TPM that spent it.
func (t *ticket) stale(ctx context.Context, s logical.Storage, now time.Time) (bool, error) {
	if t.SpentBy == "" {
		return !now.Before(t.Expires), nil
	}
	if now.Sub(t.SpentAt) < keepSpent {
		return false, nil
	}
	h, err := load[host](ctx, s, hostPrefix+t.Host)
	return h == nil || !slices.Contains(h.TPMIDs, t.SpentBy), err
}

func ticketKey(secret attest.Ticket) string {
	sum := sha256.Sum256(secret)
	return ticketPrefix + hex.EncodeToString(sum[:])
}

// redeem makes a host of a TPM that no record lists, by the ticket of its login.
// The ticket, the host record and its places in the indexes change together.
func (b *backend) redeem(ctx context.Context, r reader, p proof) (*admission, error) {
	secret := p.message.Ticket
	if secret == nil {
		return nil, attest.Refuse(attest.RuleHostUnknown, "no host has %s, and the login has no ticket", p.challenge.tpmID())
	}
	t, err := b.goodTicket(ctx, r, p)
	if err != nil {
		return nil, err
	}
	taken, err := get[host](ctx, r, hostPrefix+t.Host)
	if err != nil {
		return nil, err
	}
	if taken != nil {
		return nil, attest.Refuse(attest.RuleNameTaken, "host %s of the ticket is there already", t.Host)
	}
	h := newHost(byTicket, b.wallClock())
	h.TPMIDs, h.Roles = []attest.TPMID{p.challenge.tpmID()}, t.Roles
	spent := *t
	spent.SpentBy, spent.SpentAt = p.challenge.tpmID(), b.wallClock().UTC()
	a := &admission{host: t.Host, record: h, enrols: true}
	a.change(func(ctx context.Context, s logical.Storage) error {
		if err := save(ctx, s, ticketKey(secret), spent); err != nil {
			return err
		}
		return b.putHost(ctx, &edit{Storage: s}, t.Host, nil, h, "")
	})
	return a, nil
}

// goodTicket is the ticket of a login if it is one for this role and TPM.
func (b *backend) goodTicket(ctx context.Context, r reader, p proof) (*ticket, error) {
	t, err := get[ticket](ctx, r, ticketKey(p.message.Ticket))
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, attest.Refuse(attest.RuleTicket, "no such ticket")
	}
	if err := b.checkThief(t, p.challenge.tpmID()); err != nil {
		return nil, err
	}
	switch {
	case t.SpentBy != "":
		return nil, attest.Refuse(attest.RuleTicket, "%s spent the ticket for host %s and is a host no more", t.SpentBy, t.Host)
	case !b.wallClock().Before(t.Expires):
		return nil, attest.Refuse(attest.RuleTicket, "ticket for host %s has expired", t.Host)
	case t.Role != p.message.Role:
		return nil, attest.Refuse(attest.RuleTicket, "ticket for host %s is for role %s", t.Host, t.Role)
	}
	return t, nil
}

// checkThief refuses, with an alarm, a ticket that another TPM spent or that is
// for another.
func (b *backend) checkThief(t *ticket, id attest.TPMID) error {
	switch {
	case t.SpentBy != "" && t.SpentBy != id:
		b.alarm(attest.RuleTicket, t.Host, id, "a ticket that "+string(t.SpentBy)+" spent was shown again")
		return attest.Refuse(attest.RuleTicket, "ticket for host %s was spent by %s", t.Host, t.SpentBy)
	case t.TPMID != "" && t.TPMID != id:
		b.alarm(attest.RuleTicket, t.Host, id, "a ticket for "+string(t.TPMID)+" was shown")
		return attest.Refuse(attest.RuleTicket, "ticket for host %s is for %s", t.Host, t.TPMID)
	}
	return nil
}

// checkSpent is for a host that is there already and shows a ticket: it may be
// the one that it spent, when it did not hear the answer. No other.
func (b *backend) checkSpent(ctx context.Context, r reader, p proof) error {
	if p.message.Ticket == nil {
		return nil
	}
	t, err := get[ticket](ctx, r, ticketKey(p.message.Ticket))
	if err != nil {
		return err
	}
	if t != nil {
		if err := b.checkThief(t, p.challenge.tpmID()); err != nil {
			return err
		}
	}
	if t == nil || t.SpentBy == "" {
		return attest.Refuse(attest.RuleTicket, "a ticket never changes a host that is there")
	}
	return nil
}
