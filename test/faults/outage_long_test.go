// SPDX-License-Identifier: Apache-2.0

//go:build long

package faults_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// An outage is a fault that lasts until omen-agent run has failed by it.
type outage struct {
	name  string
	begin func(*machine)      // before the renewal
	came  func(*machine) bool // it has been in the way; nil: it always is
	steps []string            // at one of which the renewal fails; none: it does not
	mute  bool                // status cannot be written
	says  string              // the error, or its remedy
	mend  func(*machine)      // afterwards
}

// How long omen-agent run may take to fail, and to come back: it waits two minutes at
// most after the first failure.
const (
	failsWithin    = 150 * time.Second
	recoversWithin = 200 * time.Second
)

// TestOutages: the network, the TPM and the disk go away in the midst of each step and
// stay away until the renewal has failed, each on a host of its own. Meanwhile all is as
// it was; afterwards omen-agent run goes on by itself.
func TestOutages(t *testing.T) {
	all := slices.Concat(diskOutages(t), tpmOutages(t), networkOutages(t)) // what fails at once comes first
	var names []string
	for i := range all {
		names = append(names, fmt.Sprintf("host-%d", i+1))
	}
	ctx, l, machines := newLab(t, 12*time.Minute, names...)
	l.alwaysActivate(ctx, t)
	for i, o := range all {
		o.begin(machines[i])
		machines[i].run(ctx, t)
	}
	for i, o := range all {
		t.Run(o.name, func(t *testing.T) { o.judge(ctx, t, machines[i]) })
	}
	for i, o := range all {
		t.Run("after "+o.name, func(t *testing.T) {
			m := machines[i]
			m.await(ctx, t, recoversWithin, "msg=renewed")
			m.wantRenewed(ctx, t)
			m.end(ctx, t)
			if logins, signed := m.line.asked("login"), m.line.asked("sign/"); logins > 6 || signed > 6 {
				t.Errorf("%d logins, %d certificates", logins, signed)
			}
		})
	}
	if kept := l.keptTokens(ctx, t); kept > 0 {
		t.Errorf("OpenBao keeps %d tokens of the hosts", kept)
	}
}

// judge wants the failure, and mends what is in the way.
func (o outage) judge(ctx context.Context, t *testing.T, m *machine) {
	defer o.mend(m)
	if len(o.steps) == 0 {
		m.await(ctx, t, failsWithin, "msg=renewed")
	} else {
		m.await(ctx, t, failsWithin, `msg="renewal failed"`)
		text := string(check(m.ReadFile(world.RunLog))(t))
		failed := text[strings.Index(text, `msg="renewal failed"`):]
		t.Log(strings.SplitN(failed, "\n", 2)[0])
		if !strings.Contains(failed, o.says) {
			t.Errorf("it does not say %q:\n%s", o.says, text)
		}
		if o.mute {
			m.wantUnchanged(ctx, t)
		} else {
			m.wantFailed(ctx, t, o.steps...)
		}
	}
	if o.came != nil && !o.came(m) {
		t.Error("nothing was in the way")
	}
}

// networkOutages cut the line at each place of each request. Behind the last answer the
// renewal needs it no more.
func networkOutages(t *testing.T) []outage {
	all := []outage{lineOutage(t, cut{place: inHello}, "challenge"), lineOutage(t, cut{place: inHello, silent: true}, "challenge")}
	for i, r := range requests {
		for _, at := range []place{inRequest, beforeAnswer, inAnswer, afterAnswer} {
			var steps []string // where it is noticed
			switch {
			case at != afterAnswer:
				steps = []string{r.step}
			case i+1 < len(requests):
				steps = []string{requests[i+1].step}
			}
			if slices.Contains(steps, "login") { // it starts over, and does not get as far again
				steps = append(steps, "challenge")
			}
			all = append(all, lineOutage(t, cut{request: r.kind, number: r.number, place: at}, steps...))
			if at == inRequest || at == beforeAnswer || len(steps) == 0 {
				all = append(all, lineOutage(t, cut{request: r.kind, number: r.number, place: at, silent: true}, steps...))
			}
		}
	}
	return all
}

func lineOutage(t *testing.T, c cut, steps ...string) outage {
	c.lasts = true
	return outage{
		name: c.String(), steps: steps, says: "unreachable",
		begin: func(m *machine) { m.line.arm(c) },
		came:  func(m *machine) bool { return m.line.over() },
		mend:  func(m *machine) { m.line.mend(t) },
	}
}

// tpmOutages switch the TPM off with the first of each command that a renewal sends.
func tpmOutages(t *testing.T) (all []outage) {
	for _, command := range []string{"ReadPublic", "StartAuthSession", "PolicySecret", "ActivateCredential", "Quote", "PCR_Read", "CreatePrimary", "Create", "FlushContext"} {
		for _, answered := range []bool{false, true} {
			l := loss{command: command, number: 1, answered: answered, lasts: true}
			all = append(all, outage{
				name: fmt.Sprintf("TPM off with %s, answered: %v", command, answered), steps: []string{"tpm"}, says: "the TPM does not answer",
				begin: func(m *machine) { m.lead.arm(l) },
				came:  func(m *machine) bool { return m.lead.vanished() },
				mend:  func(m *machine) { m.lead.mend(t) },
			})
		}
	}
	return all
}
