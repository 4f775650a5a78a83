// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

func (b *backend) pathPendingList() *framework.Path {
	return pagedPath(pendingPrefix+"?$", "pending-hosts", pendingSynopsis, pendingDescription,
		listed(pendingPrefix, describePending, "List the TPMs that wait for approval."))
}

func (b *backend) pathPending() *framework.Path {
	return &framework.Path{
		Pattern:      pendingPrefix + tpmIDRegex,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "pending-host"},
		Fields:       map[string]*framework.FieldSchema{"tpm_id": tpmIDField()},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readPending, Summary: "Read about a TPM that waits for approval.", Responses: ok(pendingFields()),
			},
		},
		HelpSynopsis:    pendingSynopsis,
		HelpDescription: pendingDescription,
	}
}

func pendingFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{}
	for name, description := range map[string]string{
		"role":                  "Role it asks for: its own word.",
		"wanted_name":           "Name it asks for: its own word.",
		"ek_class":              "hardware, firmware or virtual.",
		"manufacturer":          "Manufacturer of the TPM, by its certificate; quoted.",
		"model":                 "Model, by its certificate; quoted.",
		"firmware":              "Firmware version, by its certificate; quoted.",
		"ek_subject":            "Subject of the EK certificate; quoted.",
		"ek_certificate_sha256": "SHA-256 of the EK certificate, hex.",
		"pcr_digest":            "What it booted: the digest over the role's PCRs, hex.",
		"source_address":        "Address it first came from.",
		"first_seen":            "When, RFC 3339.",
	} {
		fields[name] = &framework.FieldSchema{Type: framework.TypeString, Description: description}
	}
	return fields
}

func (b *backend) pathPendingApprove() *framework.Path {
	return &framework.Path{
		Pattern: pendingPrefix + tpmIDRegex + "/approve",
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationVerb: "approve", OperationSuffix: "pending-host",
		},
		Fields: map[string]*framework.FieldSchema{
			"tpm_id": tpmIDField(),
			"name":   {Type: framework.TypeString, Required: true, Description: "Name of the host to be."},
			"roles":  {Type: framework.TypeCommaStringSlice, Required: true, Description: "Roles it may use. The one it asked for is its own word: say which it gets."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: written(b.approve, "Make a host of a TPM that waits."),
		},
		HelpSynopsis:    approveSynopsis,
		HelpDescription: pendingDescription,
	}
}

func (b *backend) pathPendingDeny() *framework.Path {
	return &framework.Path{
		Pattern: pendingPrefix + tpmIDRegex + "/deny",
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationVerb: "deny", OperationSuffix: "pending-host",
		},
		Fields: map[string]*framework.FieldSchema{"tpm_id": tpmIDField()},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: written(b.denyPending, "Send a TPM that waits away for good."),
		},
		HelpSynopsis:    denySynopsis,
		HelpDescription: pendingDescription,
	}
}

func (b *backend) readPending(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	p, err := load[pending](ctx, req.Storage, pendingPrefix+d.Get("tpm_id").(string))
	if err != nil || p == nil {
		return nil, err
	}
	return &logical.Response{Data: describePending(p)}, nil
}

func describePending(p *pending) map[string]any {
	return map[string]any{
		"role": p.Role, "wanted_name": p.WantedName, "ek_class": string(p.EKClass),
		"manufacturer": p.Manufacturer, "model": p.Model, "firmware": p.Firmware, "ek_subject": p.Subject,
		"ek_certificate_sha256": p.CertificateID, "pcr_digest": p.PCRDigest,
		"source_address": p.Remote, "first_seen": p.FirstSeen.Format(time.RFC3339),
	}
}

func (b *backend) approve(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	id, name := attest.TPMID(d.Get("tpm_id").(string)), d.Get("name").(string)
	if err := checkHostName(name); err != nil {
		return answer(err)
	}
	roles := roleNames(d.Get("roles").([]string))
	var missing []string
	b.records.Lock()
	defer b.records.Unlock()
	resp, err := answer(b.edit(ctx, req.Storage, func(e *edit) (err error) {
		if err := b.makeHost(ctx, e, id, name, roles); err != nil {
			return err
		}
		missing, err = missingRoles(ctx, e, roles)
		return err
	}))
	if err == nil && !resp.IsError() {
		warnMissing(resp, missing)
	}
	return resp, err
}

// makeHost makes a host of a TPM that waits.
func (b *backend) makeHost(ctx context.Context, e *edit, id attest.TPMID, name string, roles []string) error {
	p, err := waits(ctx, e, id)
	if err != nil {
		return err
	}
	if len(roles) == 0 {
		return mistakef("roles must say which roles it may use: it asked for %s", p.Role)
	}
	taken, err := load[host](ctx, e, hostPrefix+name)
	if err != nil {
		return err
	}
	if taken != nil {
		return mistakef("host %s is there already", name)
	}
	h := newHost(byPending, b.wallClock())
	h.TPMIDs, h.Roles = []attest.TPMID{id}, roles
	if err := h.check(); err != nil {
		return err
	}
	return b.putHost(ctx, e, name, nil, h, "")
}

func waits(ctx context.Context, s logical.Storage, id attest.TPMID) (*pending, error) {
	p, err := load[pending](ctx, s, pendingPrefix+string(id))
	if err == nil && p == nil {
		err = mistakef("%s does not wait for approval", id)
	}
	return p, err
}

func (b *backend) denyPending(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	id := attest.TPMID(d.Get("tpm_id").(string))
	b.records.Lock()
	defer b.records.Unlock()
	return answer(b.edit(ctx, req.Storage, func(e *edit) error {
		p, err := waits(ctx, e, id)
		if err != nil {
			return err
		}
		if err := e.Delete(ctx, pendingPrefix+string(id)); err != nil {
			return err
		}
		return b.deny(ctx, e, id, p.AKName)
	}))
}

const (
	pendingSynopsis    = "See the TPMs that wait for approval."
	approveSynopsis    = "Make a host of a TPM that waits."
	denySynopsis       = "Send a TPM that waits away for good."
	pendingDescription = `
With a role whose way_in is pending, a TPM that no host record lists, of a class
that the role takes, has to prove itself in full and is then refused as pending
and waits here, once, until an operator approves it by its TPM ID, with a name and
the roles it may use, or denies it, which leaves a tombstone for the TPM ID and the
attestation key it proved. config's pending_limit bounds how many can
wait. What a vendor's certificate says about the TPM is shown quoted; role and
wanted name are the host's own word and decide nothing.
`
)
