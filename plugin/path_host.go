// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

func (b *backend) pathHostList() *framework.Path {
	return listPath(hostPrefix, "hosts", "List the hosts.")
}

func (b *backend) pathHost() *framework.Path {
	return &framework.Path{
		Pattern:        hostPrefix + framework.GenericNameRegex("name"),
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "host"},
		Fields:         hostFields(),
		ExistenceCheck: exists(hostPrefix),
		Operations: map[logical.Operation]framework.OperationHandler{
			// On the active node: it alone knows when a host was last seen.
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readHost, Summary: "Read a host.", Responses: ok(hostResponseFields()),
				ForwardPerformanceStandby: true,
			},
			logical.CreateOperation: written(b.writeHost, "Enrol a host."),
			logical.UpdateOperation: written(b.writeHost, "Change a host."),
			logical.DeleteOperation: written(b.deleteHost, "Delete a host."),
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
				"the others are reserved.",
		},
		"ek_certificate_sha256": {
			Type:        framework.TypeString,
			Description: "In place of a TPM ID: SHA-256 of the EK certificate in hex. The first login finds the TPM ID.",
		},
		"ek_issuer_serial": {
			Type: framework.TypeString,
			Description: "In place of a TPM ID: SHA-256, in hex, of the issuer's public key (DER SubjectPublicKeyInfo) and " +
				"the EK certificate's serial number. The first login finds the TPM ID.",
		},
		"allow_uncertified_ek": {
			Type: framework.TypeBool, Default: false,
			Description: "Let the host log in by a listed endorsement key that nobody certified.",
		},
		"roles": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Roles the host may use. Empty: it cannot log in.",
		},
		"pcr_digests": {
			Type: framework.TypeCommaStringSlice,
			Description: "Accepted digests over the role's PCRs, SHA-256 in hex, for this host. " +
				"Any: the host must meet one of them, or one of the role's baselines.",
		},
	}
}

func hostResponseFields() map[string]*framework.FieldSchema {
	fields := hostFields()
	delete(fields, "name")
	for name, description := range map[string]string{
		"state":     "active, disabled or quarantined.",
		"way_in":    "How the host was enrolled.",
		"enrolled":  "When, RFC 3339.",
		"last_seen": "When it last logged in, RFC 3339; empty: never.",
		"ak_name":   "Name of its attestation key, hex; empty: none is pinned.",
		"firmware":  "Firmware version of its TPM, vendor specific, hex.",
	} {
		fields[name] = &framework.FieldSchema{Type: framework.TypeString, Description: description}
	}
	for name, description := range map[string]string{
		"reset_count":   "Resets that its TPM has counted, at the last boot that logged in.",
		"restart_count": "Restarts since that reset.",
	} {
		fields[name] = &framework.FieldSchema{Type: framework.TypeInt64, Description: description}
	}
	return fields
}

func (b *backend) readHost(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	h, err := load[host](ctx, req.Storage, hostPrefix+name)
	if err != nil || h == nil {
		return nil, err
	}
	data, err := b.describe(ctx, req.Storage, h)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: data}, nil
}

// describe is all that is known about a host.
func (b *backend) describe(ctx context.Context, s logical.Storage, h *host) (map[string]any, error) {
	data := map[string]any{
		"tpm_ids": h.TPMIDs, "ek_certificate_sha256": h.EKCertificateSHA256, "ek_issuer_serial": h.EKIssuerSerial,
		"roles": h.Roles, "pcr_digests": h.PCRDigests, "allow_uncertified_ek": h.AllowUncertifiedEK,
		"state": string(h.State), "way_in": string(h.WayIn), "enrolled": h.Enrolled.Format(time.RFC3339),
		"last_seen": "", "ak_name": "", "firmware": "", "reset_count": 0, "restart_count": 0,
	}
	if len(h.TPMIDs) == 0 {
		return data, nil
	}
	seen, ok, err := b.seen.last(ctx, s, h.TPMIDs[0])
	if err != nil {
		return nil, err
	}
	if ok {
		data["last_seen"] = time.Unix(seen.at, 0).UTC().Format(time.RFC3339)
	}
	p, err := load[pin](ctx, s, pinPrefix+string(h.TPMIDs[0]))
	if err != nil || p == nil {
		return data, err
	}
	ak, err := p.ak()
	if err != nil {
		return nil, err
	}
	data["ak_name"], data["firmware"] = hex.EncodeToString(ak.Name()), fmt.Sprintf("%016x", p.Firmware)
	data["reset_count"], data["restart_count"] = p.ResetCount, p.RestartCount
	return data, nil
}

func (b *backend) writeHost(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkHostName(name); err != nil {
		return answer(err)
	}
	b.records.Lock()
	defer b.records.Unlock()
	var before, h *host
	var missing []string
	resp, err := answer(b.edit(ctx, req.Storage, func(e *edit) (err error) {
		if before, err = load[host](ctx, e, hostPrefix+name); err != nil {
			return err
		}
		if h, err = b.amend(before, d); err != nil {
			return err
		}
		if missing, err = missingRoles(ctx, e, h.Roles); err != nil {
			return err
		}
		return b.putHost(ctx, e, name, before, h, "replaced")
	}))
	if err == nil && !resp.IsError() {
		warnHost(resp, name, before, h)
		warnMissing(resp, missing)
	}
	return resp, err
}

// amend is a record, which may be nil, with the fields that a write names.
func (b *backend) amend(before *host, d *framework.FieldData) (*host, error) {
	h := newHost(byAllowList, b.wallClock())
	if before != nil {
		*h = *before
	}
	return h, h.set(d)
}

// warnHost says what an operator may not have meant.
func warnHost(resp *logical.Response, name string, before, h *host) {
	if len(h.Roles) == 0 {
		resp.AddWarning("roles is empty: host " + name + " cannot log in")
	}
	if h.AllowUncertifiedEK {
		resp.AddWarning("allow_uncertified_ek: nobody vouches that the key of host " + name + " is in a TPM")
	}
	if !otherBoard(before, h) {
		return
	}
	old := string(before.logsIn())
	if slices.Contains(h.TPMIDs, before.logsIn()) {
		resp.AddWarning(old + " is reserved from now on and does not log in: what was known of it is forgotten")
		return
	}
	resp.AddWarning(old + " is given up: tombstone/" + old + " keeps it out, and its attestation key. " +
		"If the board is the same and goes on by another endorsement key, list this one as well, after that, in tpm_ids")
}

func (b *backend) deleteHost(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkHostName(name); err != nil {
		return answer(err) // Spire is not spire, which would stay
	}
	b.records.Lock()
	defer b.records.Unlock()
	return nil, b.edit(ctx, req.Storage, func(e *edit) error {
		return b.removeHost(ctx, e, name)
	})
}

const (
	hostSynopsis    = "Say which TPMs belong to a host and which roles it may use."
	hostDescription = `
A TPM that no host record lists cannot log in, unless the role's way_in lets it
become a host. tpm_ids names all endorsement keys of the machine: the first logs
in, the others are reserved so that the machine cannot have a second name. One that
is not listed is another TPM to this server: whoever has the board can come by it.
Where the TPM ID is not known, the EK certificate's hash, or its issuer's key and
serial number, names the key until the first login. With pcr_digests, a login is
refused unless the quote's digest over the role's PCRs is one of them or the role's
baselines accept it. A host that is deleted, and a TPM ID or certificate that a
write leaves out, leaves a tombstone: that cannot be enrolled again before an
operator lifts it. When another TPM ID is the first, attestation key, counters and
verdicts are forgotten. Fields that a write leaves out keep their value.
`
)
