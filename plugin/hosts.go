// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openbao/openbao/sdk/v2/framework"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
)

// host is the record of one machine.
type host struct {
	// TPMIDs are all TPM IDs of the board. The first logs in; the others are
	// reserved, so that the board has no second name. None: the machine is named
	// by its EK certificate and has not logged in yet.
	TPMIDs []attest.TPMID `json:"tpm_ids"`
	// At most one of these names the endorsement key where its TPM ID is not known.
	EKCertificateSHA256 string `json:"ek_certificate_sha256,omitempty"`
	EKIssuerSerial      string `json:"ek_issuer_serial,omitempty"`

	Roles []string `json:"roles"`
	// PCRDigests are the accepted values of a quote's pcrDigest, hex, beside those
	// of the role's baselines.
	PCRDigests         []string  `json:"pcr_digests"`
	AllowUncertifiedEK bool      `json:"allow_uncertified_ek,omitempty"`
	State              hostState `json:"state"`
	WayIn              wayIn     `json:"way_in"`
	Enrolled           time.Time `json:"enrolled"`
}

// hostState says whether a host may log in.
type hostState string

const (
	hostActive      hostState = "active"
	hostDisabled    hostState = "disabled"    // for a time
	hostQuarantined hostState = "quarantined" // not to be trusted until somebody has looked
)

// Bounds of a host record.
const (
	maxTPMIDs     = 8
	maxHostRoles  = 64
	maxPCRDigests = 256
	maxSerialText = 512
)

// mistake is an operator's mistake, in words for the operator.
type mistake string

func (m mistake) Error() string { return string(m) }

func mistakef(format string, args ...any) mistake { return mistake(fmt.Sprintf(format, args...)) }

func checkHostName(name string) error {
	if attest.CheckHostName(name) != nil {
		return mistake("a host's name is one label of a-z, 0-9 and -, of 1 to 63 characters, and neither root nor default")
	}
	return nil
}

// claims are the places in the indexes that a record takes.
func (h *host) claims() []string {
	var keys []string
	for _, id := range h.TPMIDs {
		keys = append(keys, tpmPrefix+string(id))
	}
	if h.EKCertificateSHA256 != "" {
		keys = append(keys, certPrefix+h.EKCertificateSHA256)
	}
	if h.EKIssuerSerial != "" {
		keys = append(keys, serialPrefix+h.EKIssuerSerial)
	}
	return keys
}

// newHost is a record to which a way in still has to give a TPM and roles.
func newHost(way wayIn, now time.Time) *host {
	return &host{
		TPMIDs: []attest.TPMID{}, Roles: []string{}, PCRDigests: []string{},
		State: hostActive, WayIn: way, Enrolled: now.UTC().Truncate(time.Second),
	}
}

// edit is a transaction that changes host records, and the TPMs of which memory
// forgets when they were last seen once it is stored, and not before.
type edit struct {
	logical.Storage
	unseen []attest.TPMID
}

// edit changes host records: all that do writes, or nothing, see [backend.change].
func (b *backend) edit(ctx context.Context, s logical.Storage, do func(*edit) error) error {
	var e *edit
	err := b.change(ctx, s, func(s logical.Storage) error {
		e = &edit{Storage: s}
		return do(e)
	})
	if err != nil {
		return err
	}
	for _, id := range e.unseen {
		b.seen.forget(id)
	}
	return nil
}

// logsIn is the TPM ID that logs in; empty where none is known yet.
func (h *host) logsIn() attest.TPMID {
	if h == nil || len(h.TPMIDs) == 0 {
		return ""
	}
	return h.TPMIDs[0]
}

// otherBoard reports whether another TPM than before is to log in.
func otherBoard(before, h *host) bool {
	return before.logsIn() != "" && before.logsIn() != h.logsIn()
}

// putHost writes a record and its places in the indexes in place of the record
// before, which may be nil. What the record gives up leaves tombstones, and what
// was said about a board goes with it.
func (b *backend) putHost(ctx context.Context, e *edit, name string, before, h *host, reason string) error {
	if err := checkOwners(ctx, e, name, h); err != nil {
		return err
	}
	if before != nil {
		if err := b.giveUp(ctx, e, name, before, h, reason); err != nil {
			return err
		}
	}
	if otherBoard(before, h) {
		if err := removeVerdicts(ctx, e, name); err != nil {
			return err
		}
	}
	if err := settleTPMs(ctx, e, before, h); err != nil {
		return err
	}
	for _, key := range h.claims() {
		if err := save(ctx, e, key, owner{Host: name}); err != nil {
			return err
		}
	}
	return save(ctx, e, hostPrefix+name, h)
}

// settleTPMs takes TPMs that became a host's from the queue, and the pin from those
// that are reserved: the board's AK may be pinned to the EK that used to log in.
func settleTPMs(ctx context.Context, s logical.Storage, before, h *host) error {
	for i, id := range h.TPMIDs {
		if before == nil || !slices.Contains(before.TPMIDs, id) {
			if err := waitsNoMore(ctx, s, id); err != nil {
				return err
			}
		}
		if i == 0 {
			continue
		}
		if err := forget(ctx, s, id); err != nil {
			return err
		}
	}
	return nil
}

// giveUp takes away what before has in the indexes and h, which may be nil, does
// not keep.
func (b *backend) giveUp(ctx context.Context, e *edit, name string, before, h *host, reason string) error {
	var keep []string
	if h != nil {
		keep = h.claims()
	}
	for _, key := range before.claims() {
		if slices.Contains(keep, key) {
			continue
		}
		if err := e.Delete(ctx, key); err != nil {
			return err
		}
		if err := b.bury(ctx, e, key, name, reason); err != nil {
			return err
		}
	}
	return nil
}

// removeHost removes a host record and all that belongs to it.
func (b *backend) removeHost(ctx context.Context, e *edit, name string) error {
	h, err := load[host](ctx, e, hostPrefix+name)
	if err != nil || h == nil {
		return err
	}
	if err := b.giveUp(ctx, e, name, h, nil, "deleted"); err != nil {
		return err
	}
	if err := removeVerdicts(ctx, e, name); err != nil {
		return err
	}
	return e.Delete(ctx, hostPrefix+name)
}

func removeVerdicts(ctx context.Context, s logical.Storage, name string) error {
	roles, err := s.ListPage(ctx, verdictPrefix+name+"/", "", -1)
	if err != nil {
		return err
	}
	for _, role := range roles {
		if err := s.Delete(ctx, verdictPrefix+name+"/"+role); err != nil {
			return err
		}
	}
	return nil
}

// set takes over the fields that a write names and checks the whole.
func (h *host) set(d *framework.FieldData) error {
	if v, ok := d.GetOk("tpm_ids"); ok {
		h.TPMIDs = tpmIDs(v.([]string))
	}
	if v, ok := d.GetOk("ek_certificate_sha256"); ok {
		h.EKCertificateSHA256 = strings.ToLower(v.(string))
	}
	if v, ok := d.GetOk("ek_issuer_serial"); ok {
		h.EKIssuerSerial = strings.ToLower(v.(string))
	}
	if v, ok := d.GetOk("roles"); ok {
		h.Roles = roleNames(v.([]string))
	}
	if v, ok := d.GetOk("pcr_digests"); ok {
		h.PCRDigests = []string{}
		for _, digest := range v.([]string) {
			h.PCRDigests = append(h.PCRDigests, strings.ToLower(digest))
		}
	}
	if v, ok := d.GetOk("allow_uncertified_ek"); ok {
		h.AllowUncertifiedEK = v.(bool)
	}
	return h.check()
}

func tpmIDs(texts []string) []attest.TPMID {
	ids := []attest.TPMID{}
	for _, text := range texts {
		ids = append(ids, attest.TPMID(text))
	}
	return ids
}

// roleNames are names as the path of a role reads them.
func roleNames(names []string) []string {
	roles := []string{}
	for _, name := range names {
		roles = append(roles, strings.ToLower(name))
	}
	return roles
}

func (h *host) check() error {
	if err := h.checkKey(); err != nil {
		return err
	}
	if len(h.Roles) > maxHostRoles || len(h.PCRDigests) > maxPCRDigests {
		return mistakef("at most %d roles and %d pcr_digests", maxHostRoles, maxPCRDigests)
	}
	for i, digest := range h.PCRDigests {
		if !isSHA256(digest) {
			return mistakef("pcr_digests: entry %d is not 64 hex digits", i+1)
		}
	}
	return nil
}

// checkKey wants the endorsement key named, and in one way.
func (h *host) checkKey() error {
	for i, id := range h.TPMIDs {
		if id.Check() != nil {
			return mistakef("tpm_ids: entry %d is not sha256- and 64 lower-case hex digits", i+1)
		}
		if slices.Contains(h.TPMIDs[:i], id) {
			return mistakef("tpm_ids: entry %d is there twice", i+1)
		}
	}
	switch {
	case len(h.TPMIDs) > maxTPMIDs:
		return mistakef("tpm_ids has at most %d entries", maxTPMIDs)
	case h.EKCertificateSHA256 != "" && h.EKIssuerSerial != "":
		return mistake("ek_certificate_sha256 and ek_issuer_serial name one key: give one of them")
	case h.EKCertificateSHA256 != "" && !isSHA256(h.EKCertificateSHA256):
		return mistake("ek_certificate_sha256 is not 64 hex digits")
	case h.EKIssuerSerial != "" && !isSHA256(h.EKIssuerSerial):
		return mistake("ek_issuer_serial is not 64 hex digits")
	case len(h.TPMIDs) == 0 && h.EKCertificateSHA256 == "" && h.EKIssuerSerial == "":
		return mistake("tpm_ids, ek_certificate_sha256 or ek_issuer_serial must name the host's endorsement key")
	}
	return nil
}

func isSHA256(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == 32 && text == strings.ToLower(text)
}

// checkOwners refuses a key that belongs to another host, by that host's name, or
// that was given up: only operators hear this.
func checkOwners(ctx context.Context, s logical.Storage, name string, h *host) error {
	for _, key := range h.claims() {
		o, err := load[owner](ctx, s, key)
		if err != nil {
			return err
		}
		if o != nil && o.Host != name {
			_, what, _ := strings.Cut(key, "/")
			return mistakef("%s belongs to host %s already", what, o.Host)
		}
	}
	t, stone, err := buried(ctx, reader{storage: s}, h.claims()...)
	if err != nil {
		return err
	}
	if t != nil {
		return mistakef("%s was %s: delete tombstone/%s first", stone, t.why(), stone)
	}
	return nil
}

// missingRoles are those names that no role has.
func missingRoles(ctx context.Context, s logical.Storage, names []string) (missing []string, err error) {
	for _, name := range names {
		entry, err := s.Get(ctx, rolePrefix+name)
		if err != nil {
			return nil, err
		}
		if entry == nil {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

func warnMissing(resp *logical.Response, roles []string) {
	if len(roles) > 0 {
		resp.AddWarning("there is no role " + strings.Join(roles, ", ") + ": a role that is made by that name later is the host's too")
	}
}
