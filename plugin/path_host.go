// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

func (b *backend) pathHostList() *framework.Path {
	return listPath(hostPrefix, "hosts", "List the hosts.")
}

func (b *backend) pathHost() *framework.Path {
	write := func(summary string) *framework.PathOperation {
		return &framework.PathOperation{
			Callback: b.writeHost, Summary: summary, Responses: noContent(),
			ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		}
	}
	return &framework.Path{
		Pattern:        hostPrefix + framework.GenericNameRegex("name"),
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "host"},
		Fields:         hostFields(),
		ExistenceCheck: exists(hostPrefix),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readHost, Summary: "Read a host.", Responses: ok(hostResponseFields()),
			},
			logical.CreateOperation: write("Enrol a host."),
			logical.UpdateOperation: write("Change a host."),
			logical.DeleteOperation: &framework.PathOperation{
				Callback: b.deleteHost, Summary: "Delete a host.", Responses: noContent(),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
			},
		},
		HelpSynopsis:    hostSynopsis,
		HelpDescription: hostDescription,
	}
}

func hostFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name": {Type: framework.TypeString, Description: "Name of the host: one label, no dot."},
		"tpm_ids": {
			Type: framework.TypeCommaStringSlice,
			Description: "TPM IDs of the machine, sha256-<64 hex digits>. The first logs in, " +
				"the others are reserved. Required.",
		},
		"roles": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Roles the host may use. Empty: it cannot log in.",
		},
		"pcr_digests": {
			Type: framework.TypeCommaStringSlice,
			Description: "Accepted digests over the role's PCRs, SHA-256 in hex. " +
				"Empty: what the host booted is not checked.",
		},
	}
}

func hostResponseFields() map[string]*framework.FieldSchema {
	fields := hostFields()
	delete(fields, "name")
	fields["boot_policy"] = &framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "Whether the boot is checked: pcr-digests or not-checked.",
	}
	return fields
}

func (b *backend) readHost(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	h, err := load[host](ctx, req.Storage, hostPrefix+d.Get("name").(string))
	if err != nil || h == nil {
		return nil, err
	}
	policy := "pcr-digests"
	if len(h.PCRDigests) == 0 {
		policy = bootNotChecked
	}
	return &logical.Response{Data: map[string]any{
		"tpm_ids":     h.TPMIDs,
		"roles":       h.Roles,
		"pcr_digests": h.PCRDigests,
		"boot_policy": policy,
	}}, nil
}

func (b *backend) writeHost(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkHostName(name); err != nil {
		return logical.ErrorResponse("%s", err.Error()), nil
	}
	b.records.Lock()
	defer b.records.Unlock()
	var h *host
	err := logical.WithTransaction(ctx, req.Storage, func(s logical.Storage) (err error) {
		h, err = changeHost(ctx, s, name, d)
		return err
	})
	var wrong mistake
	switch {
	case errors.As(err, &wrong):
		return logical.ErrorResponse("%s", wrong.Error()), nil
	case err != nil:
		return nil, err
	}
	return hostWarnings(name, h), nil
}

// hostWarnings says what an operator may not have meant.
func hostWarnings(name string, h *host) *logical.Response {
	resp := new(logical.Response)
	if len(h.PCRDigests) == 0 {
		resp.AddWarning("pcr_digests is empty: what host " + name + " booted is not checked")
	}
	if len(h.Roles) == 0 {
		resp.AddWarning("roles is empty: host " + name + " cannot log in")
	}
	return resp
}

func (b *backend) deleteHost(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkHostName(name); err != nil {
		return logical.ErrorResponse("%s", err.Error()), nil // Spire is not spire, which would stay
	}
	b.records.Lock()
	defer b.records.Unlock()
	return nil, logical.WithTransaction(ctx, req.Storage, func(s logical.Storage) error {
		return removeHost(ctx, s, name)
	})
}

const (
	hostSynopsis    = "Say which TPMs belong to a host and which roles it may use."
	hostDescription = `
A TPM that no host record lists cannot log in. tpm_ids names all endorsement keys
of the machine: the first logs in, the others are reserved so that the machine
cannot have a second name. With pcr_digests, a login is refused unless the quote's
digest over the role's PCRs is one of them; without, what the host booted is not
checked, and its tokens say so. Deleting a host forgets its TPMs and their pinned
attestation keys. Fields that a write leaves out keep their value.
`
)
