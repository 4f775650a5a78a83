// SPDX-License-Identifier: Apache-2.0

package plugin

import (
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
	EKKeyTypes      []ekKeyType      `json:"ek_key_types,omitempty"` // none: any
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

func (r *role) selection() attest.Selection {
	return attest.Selection{Bank: r.PCRBank, PCRs: r.PCRs}
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
		after, good := seconds(v.(int), maxRenewAfter)
		if !good {
			return fmt.Errorf("renew_after is 0 to %s", maxRenewAfter)
		}
		r.RenewAfter = after
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
	if v, ok := d.GetOk("ek_key_types"); ok {
		r.EKKeyTypes = nil
		for _, kind := range v.([]string) {
			r.EKKeyTypes = append(r.EKKeyTypes, ekKeyType(kind))
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
	for _, class := range r.EKClasses {
		if !class.Known() {
			return errors.New("ek_classes are of hardware, firmware, virtual and uncertified")
		}
	}
	for _, kind := range r.EKKeyTypes {
		if !slices.Contains(ekKeyTypes, kind) {
			return errors.New("ek_key_types are of rsa2048, p256 and p384")
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

// seconds is a duration that a write gives, from 0 to most.
func seconds(n int, most time.Duration) (time.Duration, bool) {
	if n < 0 || n > int(most/time.Second) {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}
