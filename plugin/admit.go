// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
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
	message   *attest.LoginRequest
	remote    string // address, or "" when OpenBao does not say
	challenge *sealed
	ak        *attest.AK
	quote     *verify.Quote
}

// admission is the decision about a proven host. With an error beside it, it is
// no more than what the refusal leaves behind for operators.
type admission struct {
	host   string
	tpm    attest.TPMID
	class  attest.EKClass
	role   *role
	record *host
	pin    *pin // what is known of the TPM; nil before its first login
	boot   string
	// wouldRefuse are the monitored checks of the boot that failed.
	wouldRefuse []string

	// changes are written before the host is in, all or none; traces are written
	// whether it gets in or not.
	changes, traces []write
	// enrols says that they are about more than this TPM.
	enrols bool
}

// write is a part of a transaction.
type write func(context.Context, logical.Storage) error

func (a *admission) change(do write) { a.changes = append(a.changes, do) }

func (a *admission) trace(do write) { a.traces = append(a.traces, do) }

// writes are what a decision asks for.
func (a *admission) writes(refused error) []write {
	switch {
	case a == nil:
		return nil
	case refused != nil:
		return a.traces
	default:
		return slices.Concat(a.traces, a.changes)
	}
}

// admit decides about a proven host and writes what there is to write before the
// host is in. A renewal of a host that booted nothing new writes nothing.
func (b *backend) admit(ctx context.Context, s logical.Storage, p proof) (*admission, error) {
	a, err := b.consider(ctx, s, p)
	if len(a.writes(err)) > 0 {
		a, err = b.settle(ctx, s, p, a.enrols)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// consider decides by what is kept in memory, apart from operators' changes.
func (b *backend) consider(ctx context.Context, s logical.Storage, p proof) (*admission, error) {
	b.records.RLock()
	defer b.records.RUnlock()
	a, err := b.decide(ctx, b.reader(s), p)
	if err == nil && len(a.writes(nil)) == 0 {
		b.sighted(a, p)
	}
	return a, err
}

// settle decides again, apart from all that could change what it goes by, and
// writes.
func (b *backend) settle(ctx context.Context, s logical.Storage, p proof, enrols bool) (*admission, error) {
	if enrols {
		return b.enrol(ctx, s, p)
	}
	// In this order: logins of one TPM that wait for each other keep no operator
	// waiting.
	for _, lock := range locksutil.LocksForKeys(b.pins, []string{string(p.challenge.tpmID()), akKey(p.ak)}) {
		lock.Lock()
		defer lock.Unlock()
	}
	b.records.RLock()
	defer b.records.RUnlock()
	a, refused := b.decide(ctx, b.reader(s), p)
	if a != nil && a.enrols {
		return nil, attest.Refuse(attest.RuleState, "enrolment changed meanwhile")
	}
	if writes := a.writes(refused); len(writes) > 0 {
		if err := b.learnt.do(s, writes); err != nil {
			return nil, lostRace(err)
		}
	}
	if refused == nil {
		b.sighted(a, p)
	}
	return a, refused
}

// enrol decides by what is stored and writes in the same transaction, apart from
// all others.
func (b *backend) enrol(ctx context.Context, s logical.Storage, p proof) (a *admission, err error) {
	b.records.Lock()
	defer b.records.Unlock()
	var refused error
	err = b.change(ctx, s, func(s logical.Storage) error {
		a, refused = b.decide(ctx, reader{storage: s}, p)
		for _, do := range a.writes(refused) {
			if err := do(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, lostRace(err)
	}
	if refused == nil {
		b.sighted(a, p)
	}
	return a, refused
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
//   - role and configuration are as they were when the challenge was made (state)
//   - the host speaks from an address of the role's token_bound_cidrs (role)
//   - after activate: the AK is not pinned to another TPM (tpm-taken)
//   - a host record lists the TPM, or the role's way in makes one: see [backend.findHost]
//   - the record lists the role (role) and is active (host-disabled)
//   - after known: the AK is still pinned to the TPM (state)
//   - the TPM's counters did not go back (clone)
//   - the keys are proven to be in the TPM, if the role demands it (key)
//   - what was booted is accepted: see [backend.checkBoot]
func (b *backend) decide(ctx context.Context, rd reader, p proof) (*admission, error) {
	r, err := get[role](ctx, rd, rolePrefix+p.message.Role)
	if err != nil {
		return nil, err
	}
	if r == nil || r.settings != p.challenge.settings {
		return nil, attest.Refuse(attest.RuleState, "role changed since the challenge")
	}
	settings, err := getConfig(ctx, rd)
	if err != nil {
		return nil, err
	}
	if settings.sum != p.challenge.config {
		return nil, attest.Refuse(attest.RuleState, "configuration changed since the challenge")
	}
	if !cidrutil.RemoteAddrIsOk(p.remote, r.TokenBoundCIDRs) {
		return nil, attest.Refuse(attest.RuleRole, "address %q is not in token_bound_cidrs of role %s", p.remote, p.message.Role)
	}
	if err := checkAK(ctx, rd, p); err != nil {
		return nil, err
	}
	a, err := b.findHost(ctx, rd, p, r)
	if err != nil {
		return a, err
	}
	a.tpm, a.class, a.role = p.challenge.tpmID(), p.challenge.class, r
	if err := a.checkRecord(p); err != nil {
		return nil, err
	}
	return b.judge(ctx, rd, p, a)
}

// judge holds what the quote says against what is known of the host.
func (b *backend) judge(ctx context.Context, rd reader, p proof, a *admission) (*admission, error) {
	if err := a.checkPin(ctx, rd, p); err != nil {
		return nil, err
	}
	if err := b.checkCounters(ctx, rd, a, p); err != nil {
		return nil, err
	}
	if resident := verify.ResidentKeys(p.message); a.role.RequireResident && (len(resident) == 0 || slices.Contains(resident, false)) {
		return nil, attest.Refuse(attest.RuleKey, "role %s wants keys that are proven to be in the TPM", p.message.Role)
	}
	judged, err := b.checkBoot(ctx, rd, a, p)
	if err != nil {
		return a, err
	}
	a.learn(p, judged)
	return a, nil
}

// checkRecord holds the record against the role and the proof.
func (a *admission) checkRecord(p proof) error {
	if !slices.Contains(a.record.Roles, p.message.Role) {
		return attest.Refuse(attest.RuleRole, "host %s may not use role %s", a.host, p.message.Role)
	}
	if a.record.State != hostActive {
		return attest.Refuse(attest.RuleHostDisabled, "host %s is %s", a.host, a.record.State)
	}
	if p.challenge.class == attest.ClassUncertified && !a.record.AllowUncertifiedEK {
		return attest.Refuse(attest.RuleEKCertificate, "host %s has no allow_uncertified_ek", a.host)
	}
	return nil
}

// checkAK refuses the AK of another TPM: a board that changes nothing shows the
// same one with each of its endorsement keys.
func checkAK(ctx context.Context, rd reader, p proof) error {
	if p.challenge.kind != attest.KindActivate {
		return nil
	}
	other, err := get[akOwner](ctx, rd, akKey(p.ak))
	if err != nil {
		return err
	}
	if other != nil && other.TPMID != p.challenge.tpmID() {
		return attest.Refuse(attest.RuleTPMTaken, "AK of %s is pinned to %s", p.challenge.tpmID(), other.TPMID)
	}
	return nil
}

// checkPin finds what is known of the TPM. After kind known its AK must still be
// the pinned one.
func (a *admission) checkPin(ctx context.Context, rd reader, p proof) (err error) {
	if a.pin, err = get[pin](ctx, rd, pinPrefix+string(a.tpm)); err != nil {
		return err
	}
	if p.challenge.kind == attest.KindActivate {
		return nil
	}
	known, err := pinnedAK(a.pin)
	if err != nil {
		return err
	}
	if !sameAK(known, p.ak) {
		return attest.Refuse(attest.RuleState, "AK of host %s is not pinned any more", a.host)
	}
	return nil
}

func pinnedAK(p *pin) (*attest.AK, error) {
	if p == nil {
		return nil, nil
	}
	return p.ak()
}

func sameAK(a, b *attest.AK) bool {
	return a != nil && b != nil && string(a.Name()) == string(b.Name())
}

// learn has the pin written if the login says something new about the TPM: its
// AK, its boot, its firmware or a verdict.
func (a *admission) learn(p proof, judged *accepted) {
	x, y := p.ak.Point()
	next := &pin{
		AK:         append(x[:], y[:]...),
		ResetCount: p.quote.ResetCount, RestartCount: p.quote.RestartCount, Firmware: p.quote.Firmware,
		Accepted: map[string]accepted{},
	}
	same := a.pin != nil && string(a.pin.AK) == string(next.AK)
	if same {
		for role, verdict := range a.pin.Accepted {
			if slices.Contains(a.record.Roles, role) { // what the host may use no more is forgotten
				next.Accepted[role] = verdict
			}
		}
	}
	if judged != nil {
		next.Accepted[p.message.Role] = *judged
	}
	if same && judged == nil && a.pin.ResetCount == next.ResetCount &&
		a.pin.RestartCount == next.RestartCount && a.pin.Firmware == next.Firmware {
		return
	}
	a.change(func(ctx context.Context, s logical.Storage) error {
		if same {
			return save(ctx, s, pinPrefix+string(a.tpm), next)
		}
		return setPin(ctx, s, a.tpm, p.ak, next)
	})
}
