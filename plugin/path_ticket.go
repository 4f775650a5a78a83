// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/base64"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

func (b *backend) pathTicketList() *framework.Path {
	// Without the slash it is the path that issues.
	return pagedPath(ticketPrefix+"$", "tickets", ticketsSynopsis, ticketDescription,
		listed(ticketPrefix, describeTicket, "List the tickets by their SHA-256."))
}

func (b *backend) pathNewTicket() *framework.Path {
	return &framework.Path{
		Pattern:      "ticket$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "issue", OperationSuffix: "ticket"},
		Fields: map[string]*framework.FieldSchema{
			"role":    {Type: framework.TypeLowerCaseString, Required: true, Description: "Role of the login that spends the ticket; its way_in is ticket."},
			"host":    {Type: framework.TypeString, Required: true, Description: "Name of the host that the ticket makes."},
			"roles":   {Type: framework.TypeCommaStringSlice, Description: "Roles the host may use; role alone when left out."},
			"tpm_id":  {Type: framework.TypeString, Description: "TPM ID of the one TPM that can spend it. Required without any_tpm."},
			"any_tpm": {Type: framework.TypeBool, Default: false, Description: "Let any TPM spend it that the role takes."},
			"ttl": {
				Type: framework.TypeDurationSecond, Default: int(defaultTicketTTL.Seconds()),
				Description: "How long it can be spent; at most 24 hours.",
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.newTicket, Summary: "Issue a one-time ticket, wrapped.",
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				Responses: ok(map[string]*framework.FieldSchema{
					"ticket":    {Type: framework.TypeString, Description: "The ticket, base64."},
					"ticket_id": {Type: framework.TypeString, Description: "Its SHA-256, hex: to read or delete it by."},
					"expires":   {Type: framework.TypeString, Description: "Until when it can be spent, RFC 3339."},
				}),
			},
		},
		HelpSynopsis:    ticketSynopsis,
		HelpDescription: ticketDescription,
	}
}

func (b *backend) pathTicket() *framework.Path {
	return &framework.Path{
		Pattern:      ticketPrefix + "(?P<ticket_id>[0-9a-f]{64})",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "ticket"},
		Fields: map[string]*framework.FieldSchema{
			"ticket_id": {Type: framework.TypeString, Description: "SHA-256 of the ticket, hex."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readTicket, Summary: "Read what a ticket is for and who spent it.",
				Responses: ok(map[string]*framework.FieldSchema{
					"host":     {Type: framework.TypeString, Description: "Host that it makes."},
					"role":     {Type: framework.TypeString, Description: "Role of the login that spends it."},
					"roles":    {Type: framework.TypeStringSlice, Description: "Roles the host may use."},
					"tpm_id":   {Type: framework.TypeString, Description: "The one TPM that can spend it; empty: any."},
					"expires":  {Type: framework.TypeString, Description: "Until when, RFC 3339."},
					"spent_by": {Type: framework.TypeString, Description: "TPM that spent it; empty: not spent."},
					"spent_at": {Type: framework.TypeString, Description: "When, RFC 3339; empty: not spent."},
				}),
			},
			logical.DeleteOperation: written(b.deleteTicket, "Delete a ticket: it cannot be spent any more."),
		},
		HelpSynopsis:    ticketSynopsis,
		HelpDescription: ticketDescription,
	}
}

func (b *backend) newTicket(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if req.WrapInfo == nil || req.WrapInfo.TTL <= 0 {
		return logical.ErrorResponse("a ticket is given wrapped only: ask with -wrap-ttl or the header X-Vault-Wrap-TTL"), nil
	}
	ttl, good := seconds(d.Get("ttl").(int), maxTicketTTL)
	if !good || ttl == 0 {
		return logical.ErrorResponse("ttl is more than 0 and at most %s", maxTicketTTL), nil
	}
	t := &ticket{
		Host: d.Get("host").(string), Role: d.Get("role").(string), Roles: roleNames(d.Get("roles").([]string)),
		TPMID: attest.TPMID(d.Get("tpm_id").(string)), Expires: b.wallClock().Add(ttl).UTC().Truncate(time.Second),
	}
	if len(t.Roles) == 0 {
		t.Roles = []string{t.Role}
	}
	secret := make(attest.Ticket, attest.TicketSize)
	if _, err := io.ReadFull(b.random, secret); err != nil {
		return nil, err
	}
	b.records.Lock()
	defer b.records.Unlock()
	var missing []string
	resp, err := answer(b.change(ctx, req.Storage, func(s logical.Storage) (err error) {
		if err := t.check(ctx, s, d.Get("any_tpm").(bool)); err != nil {
			return err
		}
		if missing, err = missingRoles(ctx, s, t.Roles); err != nil {
			return err
		}
		return save(ctx, s, ticketKey(secret), t)
	}))
	if err == nil && !resp.IsError() {
		t.warn(resp, missing)
		resp.Data = map[string]any{
			"ticket":    base64.StdEncoding.EncodeToString(secret),
			"ticket_id": strings.TrimPrefix(ticketKey(secret), ticketPrefix),
			"expires":   t.Expires.Format(time.RFC3339),
		}
	}
	return resp, err
}

// warn says what an operator may not have meant.
func (t *ticket) warn(resp *logical.Response, missing []string) {
	warnMissing(resp, missing)
	if t.TPMID == "" {
		resp.AddWarning("any_tpm: whoever has the ticket first is host " + t.Host +
			" with any TPM that the role takes, a board that was deleted or denied and has another endorsement key as well")
	}
}

// check refuses a ticket that nobody could spend, or anybody.
func (t *ticket) check(ctx context.Context, s logical.Storage, anyTPM bool) error {
	if err := checkHostName(t.Host); err != nil {
		return err
	}
	if (t.TPMID == "") != anyTPM {
		return mistake("give tpm_id, or any_tpm=true, and not both")
	}
	if t.TPMID != "" && t.TPMID.Check() != nil {
		return mistake("tpm_id is not sha256- and 64 lower-case hex digits")
	}
	if len(t.Roles) > maxHostRoles || !slices.Contains(t.Roles, t.Role) {
		return mistakef("roles has at most %d entries and role is one of them", maxHostRoles)
	}
	r, err := load[role](ctx, s, rolePrefix+t.Role)
	if err != nil {
		return err
	}
	if r == nil || r.WayIn != byTicket {
		return mistake("role is not one whose way_in is ticket")
	}
	taken, err := load[host](ctx, s, hostPrefix+t.Host)
	if err != nil {
		return err
	}
	if taken != nil {
		return mistakef("host %s is there already: a ticket never changes a host", t.Host)
	}
	return nil
}

func (b *backend) readTicket(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	t, err := load[ticket](ctx, req.Storage, ticketPrefix+d.Get("ticket_id").(string))
	if err != nil || t == nil {
		return nil, err
	}
	return &logical.Response{Data: describeTicket(t)}, nil
}

func describeTicket(t *ticket) map[string]any {
	data := map[string]any{
		"host": t.Host, "role": t.Role, "roles": t.Roles, "tpm_id": string(t.TPMID),
		"expires": t.Expires.Format(time.RFC3339), "spent_by": string(t.SpentBy), "spent_at": "",
	}
	if !t.SpentAt.IsZero() {
		data["spent_at"] = t.SpentAt.Format(time.RFC3339)
	}
	return data
}

func (b *backend) deleteTicket(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	return nil, b.change(ctx, req.Storage, func(s logical.Storage) error {
		return s.Delete(ctx, ticketPrefix+d.Get("ticket_id").(string))
	})
}

const (
	ticketsSynopsis   = "List the tickets."
	ticketSynopsis    = "Issue, read or delete one-time tickets that let a TPM become a host."
	ticketDescription = `
A ticket is 32 random bytes, given once and wrapped; what is stored is its SHA-256.
A host that no record lists and logs in with it becomes the host that the ticket
names, with the roles it names: ticket, host record and the host's place in the
indexes change together or not at all. A ticket is for one TPM unless any_tpm is
true, lasts at most 24 hours, and never changes a host that is there. With any_tpm
nothing but the ticket says which board it is: prefer tpm_id. When a spent ticket is
shown by another TPM, that is refused and an alarm is raised.
`
)
