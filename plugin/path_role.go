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
)

// role is what a login asks for and gets.
type role struct {
	tokenutil.TokenParams

	PCRBank        string `json:"pcr_bank"`
	PCRs           []int  `json:"pcrs"`
	HostPolicy     bool   `json:"host_policy"`
	AlwaysActivate bool   `json:"always_activate"`

	// settings identifies the role as stored: another hash, another role.
	settings [sha256.Size]byte
}

// A token is for one errand; these bound how long.
const (
	defaultTTL  = 2 * time.Minute
	maxTTL      = 15 * time.Minute
	maxRoleName = 128
)

func (b *backend) pathRoleList() *framework.Path {
	return listPath(rolePrefix, "roles", "List the roles.")
}

func (b *backend) pathRole() *framework.Path {
	write := func(summary string) *framework.PathOperation {
		return &framework.PathOperation{
			Callback: b.writeRole, Summary: summary, Responses: noContent(),
			ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		}
	}
	return &framework.Path{
		Pattern:        rolePrefix + framework.GenericNameRegex("name"),
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationSuffix: "role"},
		Fields:         roleFields(),
		ExistenceCheck: exists(rolePrefix),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readRole, Summary: "Read a role.", Responses: ok(roleFields()),
			},
			logical.CreateOperation: write("Create a role."),
			logical.UpdateOperation: write("Change a role."),
			logical.DeleteOperation: &framework.PathOperation{
				Callback: b.deleteRole, Summary: "Delete a role.", Responses: noContent(),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
			},
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

// loadRole reads a role; nil means that there is none.
func loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	entry, err := s.Get(ctx, rolePrefix+name)
	if err != nil || entry == nil {
		return nil, err
	}
	r := new(role)
	if err := entry.DecodeJSON(r); err != nil {
		return nil, attest.Refuse(attest.RuleInternal, "stored role: %v", err)
	}
	r.settings = sha256.Sum256(entry.Value)
	return r, nil
}

func (r *role) selection() attest.Selection {
	return attest.Selection{Bank: r.PCRBank, PCRs: r.PCRs}
}

func (b *backend) readRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	r, err := loadRole(ctx, req.Storage, d.Get("name").(string))
	if err != nil || r == nil {
		return nil, err
	}
	data := map[string]any{
		"pcr_bank":        r.PCRBank,
		"pcrs":            r.PCRs,
		"host_policy":     r.HostPolicy,
		"always_activate": r.AlwaysActivate,
	}
	r.PopulateTokenData(data)
	return &logical.Response{Data: data}, nil
}

func (b *backend) writeRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	b.records.Lock()
	defer b.records.Unlock()
	name := d.Get("name").(string)
	r, err := loadRole(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &role{PCRBank: "sha256", HostPolicy: true}
		r.TokenTTL = defaultTTL
	}
	if err := r.set(req, d); err != nil {
		return logical.ErrorResponse("%s", err.Error()), nil
	}
	if len(name) > maxRoleName {
		return logical.ErrorResponse("a role's name has at most %d bytes", maxRoleName), nil
	}
	if err := save(ctx, req.Storage, rolePrefix+name, r); err != nil {
		return nil, err
	}
	return roleWarnings(r), nil
}

// roleWarnings says what an operator may not have meant. PCRs 16 and 21 to 23 can
// be reset after boot (TCG PC Client Platform TPM Profile, "PCR Attributes").
func roleWarnings(r *role) *logical.Response {
	resp := new(logical.Response)
	for _, pcr := range r.PCRs {
		if pcr == 16 || pcr >= 21 {
			resp.AddWarning(fmt.Sprintf("PCR %d can be reset after boot: it proves nothing about how a machine booted", pcr))
		}
	}
	return resp
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
	if err := r.selection().Check(); err != nil {
		return errors.New("pcr_bank is sha256 or sha384, pcrs are one or more of 0 to 23, none twice")
	}
	if err := r.ParseTokenFields(req, d); err != nil {
		return err
	}
	return r.checkToken()
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
	return nil, req.Storage.Delete(ctx, rolePrefix+d.Get("name").(string))
}

const (
	roleSynopsis    = "Say what a login asks for and what it gives."
	roleDescription = `
A host names a role when it logs in, and gets in only if its host record lists
that role. The host quotes exactly the role's PCRs. Tokens are batch tokens of
two minutes unless the role says otherwise, of 15 minutes at most, and are never
renewed. Fields that a write leaves out keep their value.
`
)
