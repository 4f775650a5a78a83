// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// host is an operator's record of one machine.
type host struct {
	// TPMIDs are all TPM IDs of the board. The first logs in; the others are
	// reserved, so that the board has no second name.
	TPMIDs []attest.TPMID `json:"tpm_ids"`
	Roles  []string       `json:"roles"`
	// PCRDigests are the accepted values of a quote's pcrDigest, hex. Empty means
	// that the boot is not checked.
	PCRDigests []string `json:"pcr_digests"`
}

// Bounds of a host record.
const (
	maxTPMIDs     = 8
	maxHostRoles  = 64
	maxPCRDigests = 256
)

// hostName is one DNS label: a dot in it would let one host's name contain
// another's.
var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func checkHostName(name string) error {
	if !hostName.MatchString(name) {
		return mistake("a host's name is one label of a-z, 0-9 and -, of 1 to 63 characters")
	}
	if name == "root" || name == "default" {
		return mistakef("the name %s is taken", name)
	}
	return nil
}

// mistake is an operator's mistake, in words for the operator.
type mistake string

func (m mistake) Error() string { return string(m) }

func mistakef(format string, args ...any) mistake { return mistake(fmt.Sprintf(format, args...)) }

// changeHost writes a host record and its index together.
func changeHost(ctx context.Context, s logical.Storage, name string, d *framework.FieldData) (*host, error) {
	before, err := load[host](ctx, s, hostPrefix+name)
	if err != nil {
		return nil, err
	}
	if before == nil {
		before = &host{Roles: []string{}, PCRDigests: []string{}}
	}
	h := *before
	if err := h.set(d); err != nil {
		return nil, err
	}
	if err := checkOwners(ctx, s, name, h.TPMIDs); err != nil {
		return nil, err
	}
	if err := release(ctx, s, missing(before.TPMIDs, h.TPMIDs)); err != nil {
		return nil, err
	}
	for _, reserved := range h.TPMIDs[1:] {
		// The board's AK may be pinned to the EK that used to log in.
		if err := forget(ctx, s, reserved); err != nil {
			return nil, err
		}
	}
	for _, id := range h.TPMIDs {
		if err := save(ctx, s, tpmPrefix+string(id), owner{Host: name}); err != nil {
			return nil, err
		}
	}
	return &h, save(ctx, s, hostPrefix+name, h)
}

// removeHost removes a host record and all that belongs to it.
func removeHost(ctx context.Context, s logical.Storage, name string) error {
	h, err := load[host](ctx, s, hostPrefix+name)
	if err != nil || h == nil {
		return err
	}
	if err := release(ctx, s, h.TPMIDs); err != nil {
		return err
	}
	return s.Delete(ctx, hostPrefix+name)
}

// set takes over the fields that a write names and checks the whole.
func (h *host) set(d *framework.FieldData) error {
	if v, ok := d.GetOk("tpm_ids"); ok {
		h.TPMIDs = nil
		for _, id := range v.([]string) {
			h.TPMIDs = append(h.TPMIDs, attest.TPMID(id))
		}
	}
	if v, ok := d.GetOk("roles"); ok {
		h.Roles = []string{}
		for _, role := range v.([]string) {
			h.Roles = append(h.Roles, strings.ToLower(role)) // as the path of a role reads its name
		}
	}
	if v, ok := d.GetOk("pcr_digests"); ok {
		h.PCRDigests = []string{}
		for _, digest := range v.([]string) {
			h.PCRDigests = append(h.PCRDigests, strings.ToLower(digest))
		}
	}
	return h.check()
}

func (h *host) check() error {
	if len(h.TPMIDs) == 0 || len(h.TPMIDs) > maxTPMIDs {
		return mistakef("tpm_ids has 1 to %d entries", maxTPMIDs)
	}
	for i, id := range h.TPMIDs {
		if id.Check() != nil {
			return mistakef("tpm_ids: entry %d is not sha256- and 64 lower-case hex digits", i+1)
		}
		if slices.Contains(h.TPMIDs[:i], id) {
			return mistakef("tpm_ids: entry %d is there twice", i+1)
		}
	}
	if len(h.Roles) > maxHostRoles || len(h.PCRDigests) > maxPCRDigests {
		return mistakef("at most %d roles and %d pcr_digests", maxHostRoles, maxPCRDigests)
	}
	for i, digest := range h.PCRDigests {
		if b, err := hex.DecodeString(digest); err != nil || len(b) != 32 {
			return mistakef("pcr_digests: entry %d is not 64 hex digits", i+1)
		}
	}
	return nil
}

// checkOwners refuses a TPM that belongs to another host, by that host's name:
// only operators hear this.
func checkOwners(ctx context.Context, s logical.Storage, name string, ids []attest.TPMID) error {
	for _, id := range ids {
		o, err := load[owner](ctx, s, tpmPrefix+string(id))
		if err != nil {
			return err
		}
		if o != nil && o.Host != name {
			return mistakef("%s belongs to host %s already", id, o.Host)
		}
	}
	return nil
}

// release gives TPMs free: their place in the index and what logins have learnt.
func release(ctx context.Context, s logical.Storage, ids []attest.TPMID) error {
	for _, id := range ids {
		if err := forget(ctx, s, id); err != nil {
			return err
		}
		if err := s.Delete(ctx, tpmPrefix+string(id)); err != nil {
			return err
		}
	}
	return nil
}

// missing lists what is in before and not in after.
func missing(before, after []attest.TPMID) []attest.TPMID {
	return slices.DeleteFunc(slices.Clone(before), func(id attest.TPMID) bool {
		return slices.Contains(after, id)
	})
}
