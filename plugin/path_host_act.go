// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"
)

// acts are what an operator can do to a host, by the last word of the path.
var acts = map[string]func(h *host, p *pin){
	"enable":     func(h *host, _ *pin) { h.State = hostActive },
	"disable":    func(h *host, _ *pin) { h.State = hostDisabled },
	"quarantine": func(h *host, _ *pin) { h.State = hostQuarantined },
	// After TPM2_Clear or work on the board the counters begin again.
	"accept-reset": func(_ *host, p *pin) { p.ResetCount, p.RestartCount = 0, 0 },
}

func (b *backend) pathHostAct() *framework.Path {
	return &framework.Path{
		Pattern: hostPrefix + framework.GenericNameRegex("name") + "/(?P<act>enable|disable|quarantine|accept-reset)",
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationVerb: "change", OperationSuffix: "host-state",
		},
		Fields: map[string]*framework.FieldSchema{
			"name": {Type: framework.TypeString, Description: "Name of the host."},
			"act":  {Type: framework.TypeString, Description: "What to do: enable, disable, quarantine or accept-reset."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: written(b.act, "Change the state of a host."),
		},
		HelpSynopsis:    actSynopsis,
		HelpDescription: actDescription,
	}
}

func (b *backend) act(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, act := d.Get("name").(string), d.Get("act").(string)
	b.records.Lock()
	defer b.records.Unlock()
	return answer(b.edit(ctx, req.Storage, func(e *edit) error {
		h, err := load[host](ctx, e, hostPrefix+name)
		if err != nil {
			return err
		}
		if h == nil {
			return mistake("no such host")
		}
		return actOn(ctx, e, name, h, act)
	}))
}

func actOn(ctx context.Context, e *edit, name string, h *host, act string) error {
	p := new(pin)
	if len(h.TPMIDs) > 0 {
		stored, err := load[pin](ctx, e, pinPrefix+string(h.TPMIDs[0]))
		if err != nil {
			return err
		}
		if stored != nil {
			p = stored
		}
	}
	acts[act](h, p)
	if act != "accept-reset" {
		return save(ctx, e, hostPrefix+name, h)
	}
	if len(h.TPMIDs) == 0 || len(p.AK) == 0 {
		return nil // nothing is known yet that could have gone back
	}
	e.unseen = append(e.unseen, h.TPMIDs[0])
	return save(ctx, e, pinPrefix+string(h.TPMIDs[0]), p)
}

func (b *backend) pathHostReplace() *framework.Path {
	fields := hostFields()
	for _, name := range []string{"roles", "pcr_digests", "allow_uncertified_ek"} {
		delete(fields, name)
	}
	return &framework.Path{
		Pattern: hostPrefix + framework.GenericNameRegex("name") + "/replace",
		DisplayAttrs: &framework.DisplayAttributes{
			OperationPrefix: operationPrefix, OperationVerb: "replace", OperationSuffix: "host-tpm",
		},
		Fields: fields,
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: written(b.replace, "Give a host another board."),
		},
		HelpSynopsis:    replaceSynopsis,
		HelpDescription: replaceDescription,
	}
}

// replace gives a host another board: name, roles and state stay, what was known
// of the old board does not.
func (b *backend) replace(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	b.records.Lock()
	defer b.records.Unlock()
	return answer(b.edit(ctx, req.Storage, func(e *edit) error {
		before, err := load[host](ctx, e, hostPrefix+name)
		if err != nil {
			return err
		}
		if before == nil {
			return mistake("no such host")
		}
		h := *before
		h.TPMIDs, h.EKCertificateSHA256, h.EKIssuerSerial = nil, "", ""
		h.PCRDigests, h.AllowUncertifiedEK = []string{}, false
		if err := h.set(d); err != nil {
			return err
		}
		if h.logsIn() != "" && h.logsIn() == before.logsIn() {
			return mistakef("host %s has %s already: that is no other board", name, h.logsIn())
		}
		return b.putHost(ctx, e, name, before, &h, "replaced")
	}))
}

const (
	actSynopsis    = "Disable, quarantine or enable a host, or accept that its TPM's counters went back."
	actDescription = `
A host that is disabled or quarantined is refused from the moment the answer to this
call is there. A token that OpenBao was just making for it may come out a moment
later; tokens that it has live out their minutes, and certificates until they end or
are revoked. Disabling the identity entity in OpenBao stops live tokens as well.
enable undoes both. accept-reset forgets the reset and restart counters of the
host's TPM: after TPM2_Clear, or work on the board, they begin again, and until then
logins are refused as clone.
`
	replaceSynopsis    = "Give a host another board."
	replaceDescription = `
Name, roles and state stay. What named the old board leaves tombstones; accepted PCR
digests, allow_uncertified_ek, the attestation key, counters and verdicts are
forgotten. The TPM ID that the host logs in with already is refused as a mistake: to
forget counters there is accept-reset.
`
)
