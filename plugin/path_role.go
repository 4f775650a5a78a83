// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/helper/tokenutil"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/bootpolicy"
)

func (b *backend) pathRoleList() *framework.Path {
	return listPath(rolePrefix, "roles", "List the roles.")
}

func (b *backend) pathRole() *framework.Path {
	return &framework.Path{
		Pattern:        rolePrefix + framework.GenericNameRegex("name"),
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "role"},
		Fields:         roleFields(),
		ExistenceCheck: exists(rolePrefix),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readRole, Summary: "Read a role.", Responses: ok(roleResponseFields()),
			},
			logical.CreateOperation: written(b.writeRole, "Create a role."),
			logical.UpdateOperation: written(b.writeRole, "Change a role."),
			logical.DeleteOperation: written(b.deleteRole, "Delete a role."),
		},
		HelpSynopsis:    roleSynopsis,
		HelpDescription: roleDescription,
	}
}

func roleFields() map[string]*framework.FieldSchema {
	fields := map[string]*framework.FieldSchema{
		"name": {Type: framework.TypeLowerCaseString, Description: "Name of the role."},
		"pcr_bank": {
			Type: framework.TypeString, Default: "sha256",
			Description: "PCR bank that hosts quote: sha256 or sha384.",
		},
		"pcrs": {
			Type:        framework.TypeCommaIntSlice,
			Description: "PCRs that hosts quote, 0 to 23; exactly these. Required.",
		},
		"host_policy": {
			Type: framework.TypeBool, Default: true,
			Description: "Name the policy omen-host-<host> in the token, beside the role's own.",
		},
		"always_activate": {
			Type: framework.TypeBool, Default: false,
			Description: "Prove the endorsement key at every login, not at the first only.",
		},
		"way_in": {
			Type:          framework.TypeString,
			AllowedValues: []any{string(byAllowList), string(byTicket), string(byPending)},
			Description:   "How hosts get in: allow-list, ticket or pending. Required: without, nobody logs in.",
		},
		"ek_classes": {
			Type:        framework.TypeCommaStringSlice,
			Default:     []string{string(attest.ClassHardware), string(attest.ClassFirmware)},
			Description: "Classes of endorsement keys to take: hardware, firmware, virtual, uncertified.",
		},
		"ek_key_types": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Types of endorsement keys to take: rsa2048, p256, p384. Empty: any. One alone: a board has one TPM ID here.",
		},
		"require_resident": {
			Type: framework.TypeBool, Default: false,
			Description: "Refuse a login that shows no key, or one that is not proven to be in the TPM.",
		},
		"renew_after": {
			Type:        framework.TypeDurationSecond,
			Description: "Hint to hosts: renew so long after a login. 0: they decide.",
		},
		"baselines": {
			Type:        framework.TypeCommaStringSlice,
			Description: "Baselines that say what a machine may have booted; any of them will do.",
		},
	}
	for check, name := range checkFields {
		fields[name] = &framework.FieldSchema{
			Type: framework.TypeString, Default: string(bootpolicy.Off),
			AllowedValues: []any{string(bootpolicy.Off), string(bootpolicy.Monitor), string(bootpolicy.Enforce)},
			Description:   "Check " + string(check) + " of what was booted: off, monitor (count what would be refused) or enforce.",
		}
	}
	tokenutil.AddTokenFields(fields)
	return fields
}

func roleResponseFields() map[string]*framework.FieldSchema {
	fields := roleFields()
	delete(fields, "name")
	return fields
}

// exists is the existence check of a path whose records lie under prefix.
func exists(prefix string) framework.ExistenceFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
		entry, err := req.Storage.Get(ctx, prefix+d.Get("name").(string))
		return entry != nil, err
	}
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := load[role](ctx, req.Storage, rolePrefix+d.Get("name").(string))
	if err != nil || r == nil {
		return nil, err
	}
	data := map[string]any{
		"pcr_bank":         r.PCRBank,
		"pcrs":             r.PCRs,
		"host_policy":      r.HostPolicy,
		"always_activate":  r.AlwaysActivate,
		"way_in":           string(r.WayIn),
		"ek_classes":       r.EKClasses,
		"ek_key_types":     append([]ekKeyType{}, r.EKKeyTypes...),
		"require_resident": r.RequireResident,
		"renew_after":      int64(r.RenewAfter.Seconds()),
		"baselines":        r.Baselines,
	}
	for check, name := range checkFields {
		data[name] = string(r.mode(check))
	}
	r.PopulateTokenData(data)
	return &logical.Response{Data: data}, nil
}

func (b *backend) writeRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	name := d.Get("name").(string)
	if len(name) > maxRoleName {
		return logical.ErrorResponse("a role's name has at most %d bytes", maxRoleName), nil
	}
	var r *role
	var missing []string
	resp, err := answer(b.change(ctx, req.Storage, func(s logical.Storage) (err error) {
		if r, err = load[role](ctx, s, rolePrefix+name); err != nil {
			return err
		}
		if r == nil {
			r = newRole()
		}
		if err := r.set(req, d); err != nil {
			return mistake(err.Error())
		}
		for _, name := range r.Baselines {
			entry, err := s.Get(ctx, baselinePrefix+name)
			if err != nil {
				return err
			}
			if entry == nil {
				missing = append(missing, name)
			}
		}
		return save(ctx, s, rolePrefix+name, r)
	}))
	if err == nil && !resp.IsError() {
		warnRole(resp, r)
		if len(missing) > 0 {
			resp.AddWarning("there is no baseline " + strings.Join(missing, ", ") + ": it accepts nothing before it is made")
		}
	}
	return resp, err
}

// warnRole says what an operator may not have meant. PCRs 16 and 21 to 23 can be
// reset after boot (TCG PC Client Platform TPM Profile, "PCR Attributes").
func warnRole(resp *logical.Response, r *role) {
	for _, pcr := range r.PCRs {
		if pcr == 16 || pcr >= 21 {
			resp.AddWarning(fmt.Sprintf("PCR %d can be reset after boot: it proves nothing about how a machine booted", pcr))
		}
	}
	if len(r.Baselines) == 0 && r.mode(bootpolicy.SecureBoot) == bootpolicy.Off {
		resp.AddWarning("no check of the boot is on: what a host booted is checked only where its record has pcr_digests")
	}
	for check, pcr := range map[bootpolicy.Check]int{
		bootpolicy.SecureBoot: 7, bootpolicy.SecureBootKeys: 7, bootpolicy.BootComponents: 4,
	} {
		if r.mode(check) != bootpolicy.Off && !slices.Contains(r.PCRs, pcr) {
			resp.AddWarning(fmt.Sprintf("%s reads PCR %d, which is not among pcrs: no host can meet it", checkFields[check], pcr))
		}
	}
	if slices.Contains(r.EKClasses, attest.ClassVirtual) {
		resp.AddWarning("class virtual: whoever runs the hypervisor or emulator can be any of its TPMs")
	}
	if slices.Contains(r.EKClasses, attest.ClassUncertified) {
		resp.AddWarning("class uncertified: nobody vouches that such a key is in a TPM")
	}
}

func (b *backend) deleteRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	return nil, b.change(ctx, req.Storage, func(s logical.Storage) error {
		return s.Delete(ctx, rolePrefix+d.Get("name").(string))
	})
}

const (
	roleSynopsis    = "Say what a login asks for and what it gives."
	roleDescription = `
A host names a role when it logs in, and gets in only if its host record lists
that role. way_in says how a host that no record lists becomes one. A board has as
many TPM IDs as endorsement keys, and its attestation key does not identify it: what
keeps a board out for sure is one type of key (ek_key_types) in all roles, or host
records that list all of its TPM IDs. The host
quotes exactly the role's PCRs; the checks pcr_values, secure_boot,
secure_boot_keys and boot_components compare what it booted with the role's
baselines. Tokens are batch tokens of
two minutes unless the role says otherwise, of 15 minutes at most, and are never
renewed. Fields that a write leaves out keep their value.
`
)
