// SPDX-License-Identifier: Apache-2.0

package bootpolicy

import (
	"fmt"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/eventlog"
)

// judgement is one State before one Policy.
type judgement struct {
	state *State
	live  *statements
}

// Judge compares a State with the policy at a time. A nil State is refused. The
// verdict is never nil.
func (p *Policy) Judge(state *State, now time.Time) *Verdict {
	v := new(Verdict)
	if state == nil {
		return v
	}
	j := &judgement{state: state, live: p.statements(now)}
	refused := false
	for _, c := range []struct {
		check Check
		mode  Mode
		judge func() outcome
	}{
		{PCRValues, p.PCRValues, j.pcrValues},
		{SecureBoot, p.SecureBoot, j.secureBoot},
		{SecureBootKeys, p.SecureBootKeys, j.secureBootKeys},
		{BootComponents, p.BootComponents, j.bootComponents},
	} {
		mode := c.mode.effective()
		if mode == Off {
			continue
		}
		refused = v.add(c.check, mode, c.judge()) || refused
	}
	v.Accepted = !refused
	if refused {
		v.Until = time.Time{}
	}
	return v
}

func (j *judgement) pcrValues() (o outcome) {
	until, ok := j.live.digests[j.state.PCRDigest]
	for _, e := range j.live.entries {
		if !e.State.SameValues(j.state) {
			continue
		}
		if ok {
			until = later(until, e.Expires)
		} else {
			until, ok = e.Expires, true
		}
	}
	if ok {
		o.until = until
		return o
	}
	j.explainDigest(&o)
	return o
}

// unproven finds why the log cannot answer a question about a PCR.
func (j *judgement) unproven(o *outcome, pcr int) bool {
	text := ""
	switch {
	case !j.state.Log:
		text = "no event log"
	case !j.state.covers(pcr):
		text = fmt.Sprintf("PCR %d is not among the quoted PCRs", pcr)
	case pcr == 7 && !j.state.knowsSecureBoot():
		text = fmt.Sprintf("PCR 7: Secure Boot is unknown: %s", j.state.SecureBootReason)
	default:
		return false
	}
	o.find(Finding{Rule: attest.RuleEventLog, PCR: new(pcr), Text: text})
	return true
}

func (j *judgement) secureBoot() (o outcome) {
	if !j.unproven(&o, 7) && j.state.SecureBoot != eventlog.SecureBootOn {
		o.find(Finding{PCR: new(7), Text: "PCR 7: Secure Boot is " + string(j.state.SecureBoot)})
	}
	return o
}

func (j *judgement) secureBootKeys() (o outcome) {
	if j.unproven(&o, 7) {
		return o
	}
	if len(j.live.keys) == 0 {
		o.find(Finding{PCR: new(7), Text: "PCR 7: no live baseline names Secure Boot keys"})
		return o
	}
	for _, name := range keyNames {
		set, stated := j.live.keys[name]
		if !stated {
			continue
		}
		digest, measured := j.state.Keys[name]
		text := fmt.Sprintf("PCR 7: %s: digest %s is in no live baseline", name, short(digest))
		if !measured {
			digest, text = absent, fmt.Sprintf("PCR 7: %s was not measured, as in no live baseline", name)
		}
		until, ok := set[digest]
		if !ok {
			o.find(Finding{PCR: new(7), Text: text})
			continue
		}
		o.until = earlier(o.until, until)
	}
	return o
}

func (j *judgement) bootComponents() (o outcome) {
	if j.unproven(&o, 4) {
		return o
	}
	if len(j.live.components) == 0 {
		o.find(Finding{Text: "no live baseline names components"})
	}
	if j.state.MoreComponents {
		o.find(Finding{Text: fmt.Sprintf("more than %d components", MaxComponents)})
	}
	if len(j.state.in(4)) == 0 {
		o.find(Finding{Rule: attest.RuleEventLog, PCR: new(4), Text: "PCR 4: nothing was measured that could have booted"})
	}
	for _, c := range j.state.Components {
		until, ok := j.live.components[c.Digest]
		if !ok {
			o.find(c.finding("digest " + short(c.Digest) + " is in no live baseline"))
			continue
		}
		o.until = earlier(o.until, until)
	}
	return o
}

// finding is about the component: "PCR 4: /EFI/debian/shimx64.efi: " and a text.
func (c Component) finding(text string) Finding {
	name := c.Name
	if name == "" {
		name = fmt.Sprintf("event %d", c.Event)
	}
	return Finding{
		PCR: new(c.PCR), Event: c.Event, Component: c.Name,
		Text: fmt.Sprintf("PCR %d: %s: %s", c.PCR, name, text),
	}
}
