// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// tpmIDRegex is a TPM ID in a path.
const tpmIDRegex = "(?P<tpm_id>sha256-[0-9a-f]{64})"

func tpmIDField() *framework.FieldSchema {
	return &framework.FieldSchema{Type: framework.TypeString, Description: "TPM ID, sha256-<64 hex digits>."}
}

func (b *backend) pathTombstoneList() *framework.Path {
	return listPath(tombstonePrefix, "tombstones", "List what is kept out: TPMs and EK certificates that hosts gave up.")
}

func (b *backend) pathTombstone() *framework.Path {
	return &framework.Path{
		Pattern:      tombstonePrefix + "(?P<name>(sha256|certificate|serial)-[0-9a-f]{64})",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "tombstone"},
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Description: "What it keeps out: a TPM ID, or certificate- or serial- and 64 hex digits."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readTombstone, Summary: "Read why a TPM was given up.",
				Responses: ok(map[string]*framework.FieldSchema{
					"host":    {Type: framework.TypeString, Description: "Host that gave it up; empty: none did."},
					"reason":  {Type: framework.TypeString, Description: "deleted, replaced or denied."},
					"at":      {Type: framework.TypeString, Description: "When, RFC 3339."},
					"ak_name": {Type: framework.TypeString, Description: "Name of the AK that was pinned or, when denied, proven; hex. It is kept out as well."},
				}),
			},
			logical.DeleteOperation: written(b.deleteTombstone, "Let a TPM be enrolled again."),
		},
		HelpSynopsis:    tombstoneSynopsis,
		HelpDescription: tombstoneDescription,
	}
}

func (b *backend) readTombstone(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	t, err := load[tombstone](ctx, req.Storage, tombstonePrefix+d.Get("name").(string))
	if err != nil || t == nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		"host": t.Host, "reason": t.Reason, "at": t.At.Format(time.RFC3339), "ak_name": t.AKName,
	}}, nil
}

func (b *backend) deleteTombstone(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	return nil, b.change(ctx, req.Storage, func(s logical.Storage) error {
		return lift(ctx, s, d.Get("name").(string))
	})
}

const (
	tombstoneSynopsis    = "See why a TPM was given up, or let it be enrolled again."
	tombstoneDescription = `
A TPM whose host was deleted, got another board, or was denied cannot be enrolled
again until its tombstone is deleted here. The attestation key that it had proven
is kept out with it. Where a record named the EK by its certificate, there is a
tombstone certificate-<hash> or serial-<hash> too. A board that nobody listed whole
may still come back by another certified endorsement key and a new attestation key:
list all of its TPM IDs, or have roles take one type of key (ek_key_types).
`
)
