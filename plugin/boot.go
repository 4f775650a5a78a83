// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/bootpolicy"
)

// What a token says about the boot.
const (
	bootAccepted   = "accepted"    // an enforced check accepted it
	bootMonitored  = "monitored"   // it was judged and nothing was enforced
	bootNotChecked = "not-checked" // there is nothing to judge it by
)

// baseline is a record of what machines may have booted.
type baseline struct {
	bootpolicy.Baseline

	sum [sha256.Size]byte
}

func (b *baseline) stamp(sum [sha256.Size]byte) { b.sum = sum }

// report is what was last said about a host's boot under one role, for operators.
type report struct {
	At       time.Time           `json:"at"`
	Verdict  *bootpolicy.Verdict `json:"verdict"`
	State    *bootpolicy.State   `json:"state"`
	StateID  string              `json:"state_id"`
	Firmware uint64              `json:"firmware"`
	Policy   string              `json:"policy"` // hash of what it was judged by
}

// reportEvery is how often a host that is refused can leave another report.
const reportEvery = time.Minute

// checkBoot judges what the host booted. It gives a verdict to keep when it was
// not kept before, and leaves a report where it says something new. In this order:
//
//   - the same digest was accepted before, under the same policy, and still is
//   - the quote's digest alone decides, or values and log are wanted with the next
//     login (event-log-needed)
//   - values hash to the quote's digest (pcr-digest), the log explains them
//     (event-log)
//   - the enforced checks (boot-policy)
func (b *backend) checkBoot(ctx context.Context, rd reader, a *admission, p proof) (*accepted, error) {
	policy, hash, err := bootPolicy(ctx, rd, a)
	if err != nil {
		return nil, err
	}
	if !policy.Needs().Digest {
		a.boot = bootNotChecked
		return nil, nil
	}
	now, digest := b.wallClock(), hex.EncodeToString(p.quote.PCRDigest[:])
	if known, ok := a.accepted(p.message.Role); ok && known.holds(hash, digest, now) {
		a.boot, a.wouldRefuse = known.Boot, known.WouldRefuse
		return nil, nil
	}
	state, err := b.observe(ctx, rd, policy, p, now)
	if err != nil {
		return nil, err
	}
	verdict := policy.Judge(state, now)
	if err := b.report(ctx, rd, a, p, &report{Verdict: verdict, State: state, Policy: hash}); err != nil {
		return nil, err
	}
	if err := verdict.Err(); err != nil {
		return nil, err
	}
	return a.accept(policy, hash, digest, verdict), nil
}

func (a *admission) accepted(role string) (accepted, bool) {
	if a.pin == nil {
		return accepted{}, false
	}
	known, ok := a.pin.Accepted[role]
	return known, ok
}

func (k accepted) holds(policy, digest string, now time.Time) bool {
	return k.Policy == policy && k.Digest == digest && (k.Until.IsZero() || now.Before(k.Until))
}

func (a *admission) accept(policy *bootpolicy.Policy, hash, digest string, v *bootpolicy.Verdict) *accepted {
	a.boot = bootMonitored
	for _, mode := range []bootpolicy.Mode{policy.PCRValues, policy.SecureBoot, policy.SecureBootKeys, policy.BootComponents} {
		if mode == bootpolicy.Enforce {
			a.boot = bootAccepted
		}
	}
	for _, check := range v.WouldRefuse {
		a.wouldRefuse = append(a.wouldRefuse, string(check))
	}
	return &accepted{Policy: hash, Digest: digest, Boot: a.boot, Until: v.Until, WouldRefuse: a.wouldRefuse}
}

// bootPolicy is what the role and the host's record demand, and a hash of all that
// it goes by: a verdict holds under the same hash only.
func bootPolicy(ctx context.Context, rd reader, a *admission) (*bootpolicy.Policy, string, error) {
	r := a.role
	policy := &bootpolicy.Policy{
		PCRValues: r.mode(bootpolicy.PCRValues), SecureBoot: r.mode(bootpolicy.SecureBoot),
		SecureBootKeys: r.mode(bootpolicy.SecureBootKeys), BootComponents: r.mode(bootpolicy.BootComponents),
		HostDigests: a.record.PCRDigests,
	}
	if len(a.record.PCRDigests) > 0 {
		policy.PCRValues = bootpolicy.Enforce
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q", []bootpolicy.Mode{ // a hash never errs
		policy.PCRValues, policy.SecureBoot, policy.SecureBootKeys, policy.BootComponents,
	})
	_, _ = fmt.Fprintf(h, "%q %v", r.PCRBank, r.PCRs)
	for _, name := range r.Baselines {
		l, err := get[baseline](ctx, rd, baselinePrefix+name)
		if err != nil {
			return nil, "", err
		}
		if l == nil {
			l = new(baseline) // accepts nothing
		}
		policy.Baselines = append(policy.Baselines, l.Baseline)
		h.Write(l.sum[:])
	}
	_, _ = fmt.Fprintf(h, "%q", a.record.PCRDigests)
	return policy, hex.EncodeToString(h.Sum(nil)), nil
}

// observe is what the login says about the boot: the digest where no check has more
// to say, else values and log, which the host sends when it is asked to. A log that
// explains nothing is no log where no enforced check reads it: what is monitored
// refuses nobody.
func (b *backend) observe(ctx context.Context, rd reader, policy *bootpolicy.Policy, p proof, now time.Time) (*bootpolicy.State, error) {
	m, selection := p.message, p.challenge.selection
	if m.PCRs == nil {
		state := bootpolicy.FromDigest(selection, p.quote.PCRDigest)
		if v := policy.Judge(state, now); !policy.Needs().Log && v.Accepted && len(v.WouldRefuse) == 0 {
			return state, nil
		}
		return nil, attest.Refuse(attest.RuleEventLogNeeded, "no verdict for pcrDigest %x", p.quote.PCRDigest)
	}
	settings, err := getConfig(ctx, rd)
	if err != nil {
		return nil, err
	}
	if err := checkLog(m); err != nil {
		return nil, err
	}
	log := m.EventLog
	if len(log) > settings.MaxEventLog {
		if policy.EnforcesLog() {
			return nil, attest.Refuse(attest.RuleSize, "event log of %d bytes", len(log))
		}
		log = nil
	}
	state, err := bootpolicy.Observe(selection, m.PCRs, p.quote.PCRDigest, log)
	if err != nil && !policy.EnforcesLog() {
		return bootpolicy.Observe(selection, m.PCRs, p.quote.PCRDigest, nil)
	}
	return state, err
}

// checkLog wants the log that was quoted, if one was.
func checkLog(m *attest.LoginRequest) error {
	none := [sha256.Size]byte{}
	switch {
	case m.EventLog == nil && !slices.Equal(m.EventLogHash, none[:]):
		return attest.Refuse(attest.RuleEventLogNeeded, "event log is quoted and was not sent")
	case m.EventLog != nil && sha256.Sum256(m.EventLog) != [sha256.Size]byte(m.EventLogHash):
		return attest.Refuse(attest.RuleEventLog, "event log is not the quoted one")
	}
	return nil
}

// report leaves a report if it says something else than the one before. Where only
// the digest is known now, what was known of the same digest stays.
//
// A host that is refused leaves one a minute at most: moving a PCR costs it nothing.
func (b *backend) report(ctx context.Context, rd reader, a *admission, p proof, next *report) error {
	key := verdictPrefix + a.host + "/" + p.message.Role
	next.At, next.StateID = b.wallClock().UTC().Truncate(time.Second), next.State.ID()
	next.Firmware = p.quote.Firmware
	before, err := get[report](ctx, rd, key)
	if err != nil {
		return err
	}
	if before != nil && before.State != nil && len(next.State.Values) == 0 && before.State.SameValues(next.State) {
		next.State, next.StateID = before.State, before.StateID
	}
	if before == nil || !before.says(next) && !before.tooSoonFor(next) {
		a.trace(func(ctx context.Context, s logical.Storage) error { return save(ctx, s, key, next) })
	}
	return nil
}

// tooSoonFor reports whether a host that is refused says something else within a
// minute, under the same policy.
func (r *report) tooSoonFor(next *report) bool {
	return !r.Verdict.Accepted && !next.Verdict.Accepted && r.Policy == next.Policy && next.At.Sub(r.At) < reportEvery
}

// says reports whether two reports differ in nothing but their time and what is a
// remark in the state.
func (r *report) says(other *report) bool {
	mine, err := json.Marshal(r.Verdict)
	theirs, otherErr := json.Marshal(other.Verdict)
	return err == nil && otherErr == nil && bytes.Equal(mine, theirs) &&
		r.StateID == other.StateID && r.Firmware == other.Firmware
}
