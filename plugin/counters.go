// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"cmp"
	"context"

	"funlab.casa/omen/attest"
)

// checkCounters refuses a TPM whose time went back: its reset and restart
// counters (TPM 2.0 Part 2, 10.11.1) only grow, and within one boot so does its
// clock. Where they fall, TPM2_Clear was called, or two machines answer for one
// TPM. Restarts are counted from each reset on.
//
// Where another login of the TPM was let in after this one had got its challenge,
// this quote may be the older one: the host starts over.
func (b *backend) checkCounters(ctx context.Context, rd reader, a *admission, p proof) error {
	q := p.quote
	last, seen, err := b.seen.last(ctx, rd.storage, a.tpm)
	if err != nil {
		return err
	}
	overlaps := seen && p.challenge.issued < last.admitted
	if a.pin != nil && earlierBoot(q.ResetCount, q.RestartCount, a.pin.ResetCount, a.pin.RestartCount) {
		if overlaps {
			return attest.Refuse(attest.RuleState, "host %s booted while it logged in", a.host)
		}
		return b.clone(a, "reset %d restart %d after reset %d restart %d",
			q.ResetCount, q.RestartCount, a.pin.ResetCount, a.pin.RestartCount)
	}
	sameBoot := seen && last.reset == q.ResetCount && last.restart == q.RestartCount
	if !sameBoot || q.Clock >= last.clock || overlaps {
		return nil
	}
	return b.clone(a, "clock %d after %d within one boot", q.Clock, last.clock)
}

// earlierBoot compares two moments by reset and restart count.
func earlierBoot(reset, restart, thanReset, thanRestart uint32) bool {
	return cmp.Or(cmp.Compare(reset, thanReset), cmp.Compare(restart, thanRestart)) < 0
}

func (b *backend) clone(a *admission, format string, args ...any) error {
	refused := attest.Refuse(attest.RuleClone, format, args...)
	b.alarm(attest.RuleClone, a.host, a.tpm, refused.Detail)
	refused.Detail = "host " + a.host + ": " + refused.Detail
	return refused
}

// alarm tells operators what does not happen to honest hosts.
func (b *backend) alarm(rule attest.Rule, host string, id attest.TPMID, detail string) {
	b.Logger().Error("alarm", "rule", string(rule), "host", host, "tpm_id", string(id), "detail", printable(detail))
	b.statistics.raise(alarm{At: b.wallClock(), Rule: rule, Host: host, TPMID: id, Detail: detail})
}

// sighted remembers a login that was let in.
func (b *backend) sighted(a *admission, p proof) {
	b.seen.note(a.tpm, sighting{
		at: b.wallClock().Unix(), clock: p.quote.Clock, reset: p.quote.ResetCount, restart: p.quote.RestartCount,
		admitted: b.challenges.now(),
	})
	b.statistics.login()
	b.statistics.monitor(p.message.Role, a.wouldRefuse)
}
