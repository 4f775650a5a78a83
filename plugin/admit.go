// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/openbao/openbao/sdk/v2/helper/cidrutil"
	"github.com/openbao/openbao/sdk/v2/helper/locksutil"
	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/verify"
)

// proof is what a host has proven and what it asks for.
type proof struct {
	role      string
	remote    string // address, or "" when OpenBao does not say
	challenge *sealed
	ak        *attest.AK
	quote     *verify.Quote
}

// admission is the decision to let a host in.
type admission struct {
	host string
	tpm  attest.TPMID
	role *role
	boot string
	// newPin says that the AK is still to be pinned: the host is not in before.
	newPin bool
}

// What a token says about the boot.
const (
	bootAccepted   = "accepted"
	bootNotChecked = "not-checked"
)

// admit decides about a proven host over one state of the storage and, after an
// activation, pins its AK in the transaction that reads that state. A login that
// has nothing to pin writes nothing.
func (b *backend) admit(ctx context.Context, s logical.Storage, p proof) (*admission, error) {
	b.records.RLock()
	defer b.records.RUnlock()
	var a *admission
	err := view(ctx, s, func(s logical.Storage) (err error) {
		a, err = decide(ctx, s, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !a.newPin {
		return a, nil
	}
	for _, lock := range locksutil.LocksForKeys(b.pins, []string{string(a.tpm), akKey(p.ak)}) {
		lock.Lock()
		defer lock.Unlock()
	}
	err = logical.WithTransaction(ctx, s, func(s logical.Storage) (err error) {
		if a, err = decide(ctx, s, p); err != nil || !a.newPin {
			return err
		}
		return setPin(ctx, s, a.tpm, p.ak)
	})
	if err != nil {
		return nil, lostRace(err)
	}
	return a, nil
}

// lostRace tells a host to start over when another request changed what this one
// had read. The storage's own error does not survive the plugin protocol, its
// text does.
func lostRace(err error) error {
	if strings.Contains(err.Error(), "transaction commit failed") {
		return attest.Refuse(attest.RuleState, "%v", err)
	}
	return err
}

// decide says yes or no to a proven host. In this order, each with the rule that
// refuses:
//
//   - the role is as it was when the challenge was made (state)
//   - the host speaks from an address of the role's token_bound_cidrs (role)
//   - a host record lists the TPM (host-unknown), as the one that logs in and not
//     as a reserved one (tpm-taken)
//   - the record lists the role (role)
//   - the quote's pcrDigest is accepted, if the record names any (boot-policy)
//   - after known: the AK is still pinned to the TPM (state); after activate: it
//     is not pinned to another one (tpm-taken)
func decide(ctx context.Context, s logical.Storage, p proof) (*admission, error) {
	r, err := loadRole(ctx, s, p.role)
	if err != nil {
		return nil, err
	}
	if r == nil || r.settings != p.challenge.settings {
		return nil, attest.Refuse(attest.RuleState, "role changed since the challenge")
	}
	if !cidrutil.RemoteAddrIsOk(p.remote, r.TokenBoundCIDRs) {
		return nil, attest.Refuse(attest.RuleRole, "address %q is not in token_bound_cidrs of role %s", p.remote, p.role)
	}
	a := &admission{tpm: p.challenge.tpmID(), role: r}
	h, err := a.findHost(ctx, s)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(h.Roles, p.role) {
		return nil, attest.Refuse(attest.RuleRole, "host %s may not use role %s", a.host, p.role)
	}
	if err := a.checkBoot(h, p.quote); err != nil {
		return nil, err
	}
	if err := a.checkPin(ctx, s, p); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *admission) findHost(ctx context.Context, s logical.Storage) (*host, error) {
	o, err := load[owner](ctx, s, tpmPrefix+string(a.tpm))
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, attest.Refuse(attest.RuleHostUnknown, "no host has %s", a.tpm)
	}
	h, err := load[host](ctx, s, hostPrefix+o.Host)
	if err != nil {
		return nil, err
	}
	if h == nil || !slices.Contains(h.TPMIDs, a.tpm) {
		return nil, attest.Refuse(attest.RuleHostUnknown, "index names host %s for %s, its record does not", o.Host, a.tpm)
	}
	if h.TPMIDs[0] != a.tpm {
		return nil, attest.Refuse(attest.RuleTPMTaken, "%s is reserved: host %s logs in with %s", a.tpm, o.Host, h.TPMIDs[0])
	}
	a.host = o.Host
	return h, nil
}

func (a *admission) checkBoot(h *host, q *verify.Quote) error {
	if len(h.PCRDigests) == 0 {
		a.boot = bootNotChecked
		return nil
	}
	digest := hex.EncodeToString(q.PCRDigest[:])
	if !slices.Contains(h.PCRDigests, digest) {
		return attest.Refuse(attest.RuleBootPolicy, "host %s booted into pcrDigest %s", a.host, digest)
	}
	a.boot = bootAccepted
	return nil
}

func (a *admission) checkPin(ctx context.Context, s logical.Storage, p proof) error {
	known, err := pinned(ctx, s, a.tpm)
	if err != nil {
		return err
	}
	if sameAK(known, p.ak) {
		return nil
	}
	if p.challenge.kind != attest.KindActivate {
		return attest.Refuse(attest.RuleState, "AK of host %s is not pinned any more", a.host)
	}
	other, err := load[akOwner](ctx, s, akKey(p.ak))
	if err != nil {
		return err
	}
	if other != nil && other.TPMID != a.tpm {
		return attest.Refuse(attest.RuleTPMTaken, "AK of host %s is pinned to %s", a.host, other.TPMID)
	}
	a.newPin = true
	return nil
}
