// SPDX-License-Identifier: Apache-2.0

//go:build long

package cluster_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/test/cluster"
)

// TestLeaderKilledThrice is about time, with OpenBao's own time-outs: how long
// after the cluster has a leader again a host gets in.
func TestLeaderKilledThrice(t *testing.T) {
	f := newField(t, cluster.Config{})
	m := f.enrol("spire")
	f.in(m, roleKnown)
	var took []time.Duration
	for range 3 {
		leader, began := f.leader(), time.Now()
		check(t, leader.Kill())
		next, err := f.WaitForLeader(t.Context(), began)
		check(t, err)
		there := time.Now()
		conversations, err := m.getIn(t.Context(), f.client(), roleKnown)
		check(t, err)
		took = append(took, time.Since(there))
		t.Logf("%s leads %s after the kill, a login works %s later, in conversation %d",
			next.Name, there.Sub(began).Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), conversations)
		check(t, leader.Start(t.Context()))
	}
	slices.Sort(took)
	if took[1] > time.Second {
		t.Errorf("a login works %v after there is a leader", took)
	}
}

// TestLeaderFrozen stops a leader in its tracks until there is another one, shuts
// a host out there, and lets the old one go on, which still believes that it
// leads. It may let the host in until it notices, never after.
func TestLeaderFrozen(t *testing.T) {
	f := newField(t, cluster.Config{})
	m := f.enrol("spire")
	f.in(m, roleKnown)
	old, began := f.leader(), time.Now()
	c := f.challenge(m, roleKnown, old)
	server, err := old.Server()
	check(t, err)
	check(t, syscall.Kill(server.PID, syscall.SIGSTOP))
	next, err := f.WaitForLeader(t.Context(), began)
	check(t, err)
	t.Logf("%s leads %s after the stop", next.Name, since(began))
	f.shut(next, m.name)
	check(t, syscall.Kill(server.PID, syscall.SIGCONT))

	going := time.Now()
	err = f.login(m, roleKnown, c, old)
	t.Logf("%s answers %s after it goes on: %v", old.Name, since(going), err)
	f.refusedFromNowOn(m, going)
	f.refused(f.login(m, roleKnown, c, next), attest.RuleChallenge, "challenge of the leader that was, on %s", next.Name)
}

// refusedFromNowOn waits until every node refuses the host, and wants it to stay
// so.
func (f *field) refusedFromNowOn(m *machine, began time.Time) {
	f.t.Helper()
	for _, n := range f.Nodes {
		client := f.client(n)
		for {
			_, err := m.getIn(f.t.Context(), client, roleKnown)
			if err != nil {
				f.refused(err, ruleWhenShut, "asked on %s", n.Name)
				break
			}
			if time.Since(began) > 30*time.Second {
				f.t.Fatalf("%s still lets the host in", n.Name)
			}
		}
		f.t.Logf("%s refuses after %s", n.Name, since(began))
	}
	for _, n := range f.Nodes {
		_, err := m.getIn(f.t.Context(), f.client(n), roleKnown)
		f.refused(err, ruleWhenShut, "asked again on %s", n.Name)
	}
}
