// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/helper/tokenutil"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/bootpolicy"
)

// role is what a login asks for and gets.
type role struct {
	tokenutil.TokenParams

	PCRBank        string `json:"pcr_bank"`
	PCRs           []int  `json:"pcrs"`
	HostPolicy     bool   `json:"host_policy"`
	AlwaysActivate bool   `json:"always_activate"`

	WayIn           wayIn            `json:"way_in"`
	EKClasses       []attest.EKClass `json:"ek_classes"`
	RequireResident bool             `json:"require_resident"`
	RenewAfter      time.Duration    `json:"renew_after"`

	Baselines []string                             `json:"baselines"`
	Checks    map[bootpolicy.Check]bootpolicy.Mode `json:"checks"`

	// settings identifies the role as stored: another hash, another role.
	settings [sha256.Size]byte
}

func (r *role) stamp(sum [sha256.Size]byte) { r.settings = sum }

// wayIn says how a host that no record lists can become one. A role names exactly
// one; without, nobody logs in with it.
type wayIn string

const (
	byAllowList wayIn = "allow-list" // an operator lists the host before
	byTicket    wayIn = "ticket"     // the host shows a one-time ticket
	byPending   wayIn = "pending"    // the host waits until an operator approves it
)

func (w wayIn) known() bool { return w == byAllowList || w == byTicket || w == byPending }

// checkFields are the fields that switch a check of the boot, by the check's name.
var checkFields = map[bootpolicy.Check]string{
	bootpolicy.PCRValues:      "pcr_values",
	bootpolicy.SecureBoot:     "secure_boot",
	bootpolicy.SecureBootKeys: "secure_boot_keys",
	bootpolicy.BootComponents: "boot_components",
}

// A token is for one errand; these bound how long.
const (
	defaultTTL  = 2 * time.Minute
	maxTTL      = 15 * time.Minute
	maxRoleName = 128

	maxRoleBaselines = 32
	maxRenewAfter    = 30 * 24 * time.Hour
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
				Callback: b.readRole, Summary: "Read a role.", Responses: ok(roleFields()),
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
		"require_resident": {
			Type: framework.TypeBool, Default: false,
			Description: "Refuse a login with a key that is not proven to be in the TPM.",
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

// exists is the existence check of a path whose records lie under prefix.
func exists(prefix string) framework.ExistenceFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
		entry, err := req.Storage.Get(ctx, prefix+d.Get("name").(string))
		return entry != nil, err
	}
}

func (r *role) selection() attest.Selection {
	return attest.Selection{Bank: r.PCRBank, PCRs: r.PCRs}
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

func (r *role) mode(check bootpolicy.Check) bootpolicy.Mode {
	if mode, ok := r.Checks[check]; ok {
		return mode
	}
	return bootpolicy.Off
}

func newRole() *role {
	r := &role{
		PCRBank: "sha256", HostPolicy: true, Baselines: []string{}, Checks: map[bootpolicy.Check]bootpolicy.Mode{},
		EKClasses: []attest.EKClass{attest.ClassHardware, attest.ClassFirmware},
	}
	r.TokenTTL = defaultTTL
	return r
}

func (b *backend) writeRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	name := d.Get("name").(string)
	if len(name) > maxRoleName {
		return logical.ErrorResponse("a role's name has at most %d bytes", maxRoleName), nil
	}
	var r *role
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
		return save(ctx, s, rolePrefix+name, r)
	}))
	if err == nil && !resp.IsError() {
		warnRole(resp, r)
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

// set takes over the fields that a write names and checks the whole.
func (r *role) set(req *logical.Request, d *framework.FieldData) error {
	if v, ok := d.GetOk("pcr_bank"); ok {
		r.PCRBank = v.(string)
	}
	if v, ok := d.GetOk("pcrs"); ok {
		r.PCRs = slices.Sorted(slices.Values(v.([]int)))
	}
	if v, ok := d.GetOk("host_policy"); ok {
		r.HostPolicy = v.(bool)
	}
	if v, ok := d.GetOk("always_activate"); ok {
		r.AlwaysActivate = v.(bool)
	}
	if v, ok := d.GetOk("require_resident"); ok {
		r.RequireResident = v.(bool)
	}
	if v, ok := d.GetOk("renew_after"); ok {
		r.RenewAfter = time.Duration(v.(int)) * time.Second
	}
	r.setTrust(d)
	r.setBoot(d)
	if err := r.check(); err != nil {
		return err
	}
	if err := r.ParseTokenFields(req, d); err != nil {
		return err
	}
	return r.checkToken()
}

func (r *role) setTrust(d *framework.FieldData) {
	if v, ok := d.GetOk("way_in"); ok {
		r.WayIn = wayIn(v.(string))
	}
	if v, ok := d.GetOk("ek_classes"); ok {
		r.EKClasses = []attest.EKClass{}
		for _, class := range v.([]string) {
			r.EKClasses = append(r.EKClasses, attest.EKClass(class))
		}
	}
}

func (r *role) setBoot(d *framework.FieldData) {
	if v, ok := d.GetOk("baselines"); ok {
		r.Baselines = roleNames(v.([]string))
	}
	for check, name := range checkFields {
		if v, ok := d.GetOk(name); ok {
			r.Checks[check] = bootpolicy.Mode(v.(string))
		}
	}
}

func (r *role) check() error {
	if err := r.selection().Check(); err != nil {
		return errors.New("pcr_bank is sha256 or sha384, pcrs are one or more of 0 to 23, none twice")
	}
	if !r.WayIn.known() {
		return errors.New("way_in is exactly one of allow-list, ticket and pending")
	}
	if r.RenewAfter < 0 || r.RenewAfter > maxRenewAfter {
		return fmt.Errorf("renew_after is 0 to %s", maxRenewAfter)
	}
	for _, class := range r.EKClasses {
		if !class.Known() {
			return errors.New("ek_classes are of hardware, firmware, virtual and uncertified")
		}
	}
	return r.checkBoot()
}

// checkBoot refuses checks that could not mean what an operator thinks.
func (r *role) checkBoot() error {
	if len(r.Baselines) > maxRoleBaselines {
		return fmt.Errorf("at most %d baselines", maxRoleBaselines)
	}
	on := false
	for check, name := range checkFields {
		mode, err := bootpolicy.ParseMode(string(r.mode(check)))
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case mode == bootpolicy.Off:
			continue
		case check != bootpolicy.SecureBoot && len(r.Baselines) == 0:
			return fmt.Errorf("%s needs baselines to compare with", name)
		}
		on = true
	}
	if len(r.Baselines) > 0 && !on {
		return errors.New("baselines are named and nothing checks them: switch on pcr_values, secure_boot_keys or boot_components")
	}
	return nil
}

// checkToken makes a batch token of minutes out of what was left open, and
// refuses what would be more.
func (r *role) checkToken() error {
	if r.TokenType != logical.TokenTypeService {
		r.TokenType = logical.TokenTypeBatch
	}
	if r.TokenTTL == 0 {
		r.TokenTTL = defaultTTL
	}
	if r.TokenType == logical.TokenTypeBatch && r.TokenNumUses != 0 {
		return errors.New("token_num_uses needs token_type=service")
	}
	if r.TokenTTL > maxTTL || r.TokenMaxTTL > maxTTL || r.TokenExplicitMaxTTL > maxTTL {
		return fmt.Errorf("token_ttl, token_max_ttl and token_explicit_max_ttl are at most %s: hosts log in again", maxTTL)
	}
	if r.TokenExplicitMaxTTL < 0 {
		return errors.New("token_explicit_max_ttl cannot be negative")
	}
	if r.TokenPeriod != 0 {
		return errors.New("token_period is not for this auth method: tokens are not renewed")
	}
	if slices.ContainsFunc(r.TokenPolicies, isRoot) {
		return errors.New("the policy root is not for hosts")
	}
	return nil
}

// isRoot goes by OpenBao's reading of a policy's name.
func isRoot(policy string) bool { return strings.EqualFold(strings.TrimSpace(policy), "root") }

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
that role. way_in says how a host that no record lists becomes one. The host
quotes exactly the role's PCRs; the checks pcr_values, secure_boot,
secure_boot_keys and boot_components compare what it booted with the role's
baselines. Tokens are batch tokens of
two minutes unless the role says otherwise, of 15 minutes at most, and are never
renewed. Fields that a write leaves out keep their value.
`
)
