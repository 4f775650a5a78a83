// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"slices"

	"sync"
	"testing"
	"time"

	"github.com/openbao/openbao/sdk/v2/logical"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/test/cluster"
)

// TestThreeNodes plays everything that needs no other cluster than a healthy
// one, in this order: each part leaves three nodes with a leader.
func TestThreeNodes(t *testing.T) {
	f := newField(t, cluster.Config{Multiplier: 2})
	spire := f.enrol("spire")
	t.Run("any node for challenge and login", func(t *testing.T) { f.on(t).pairs(spire) })
	t.Run("handled once, by the leader", func(t *testing.T) { f.on(t).handledOnce(spire) })
	t.Run("one challenge on three nodes at once", func(t *testing.T) { f.on(t).oneOfThree(spire) })
	t.Run("shut out on all nodes", func(t *testing.T) { f.on(t).shutOut() })
	t.Run("plugin killed", func(t *testing.T) { f.on(t).pluginKilled(spire) })
	t.Run("leader stopped", func(t *testing.T) { f.on(t).leaderEnds(spire, (*cluster.Node).Stop) })
	t.Run("leader killed", func(t *testing.T) { f.on(t).leaderEnds(spire, (*cluster.Node).Kill) })
	t.Run("step down and back", func(t *testing.T) { f.on(t).stepsDownAndBack(spire) })
	t.Run("upgraded", func(t *testing.T) { f.on(t).upgrades(spire) })
}

// pairs asks each node for a challenge and answers it at each, in both kinds.
func (f *field) pairs(m *machine) {
	f.in(m, roleKnown) // pins the AK
	for _, asked := range f.Nodes {
		for _, answered := range f.Nodes {
			for role, kind := range map[string]attest.Kind{roleKnown: attest.KindKnown, roleActivate: attest.KindActivate} {
				c := f.challenge(m, role, asked)
				if c.Kind != kind {
					f.t.Fatalf("challenge of kind %s, want %s", c.Kind, kind)
				}
				if err := f.login(m, role, c, answered); err != nil {
					f.t.Errorf("challenge on %s, login on %s, %s: %v", asked.Name, answered.Name, kind, err)
				}
			}
		}
	}
}

// handledOnce reads in the audit logs where a login by way of a standby was
// handled. The standby's own entries say that it could not: OpenBao stops there
// before the plugin is asked.
func (f *field) handledOnce(m *machine) {
	standbys, err := f.Standbys(f.t.Context())
	check(f.t, err)
	before := map[*cluster.Node]int{}
	for _, n := range f.Nodes {
		before[n] = len(f.audited(n))
	}
	f.in(m, roleKnown, standbys[0])
	leader := f.leader()
	for _, n := range f.Nodes {
		got, want := f.audited(n)[before[n]:], [][3]string{}
		for _, path := range []string{mount + "/challenge", mount + "/login"} {
			switch n {
			case leader:
				want = append(want, [3]string{path, "request"}, [3]string{path, "response"})
			case standbys[0]:
				want = append(want, [3]string{path, "request"}, [3]string{path, "response", logical.ErrReadOnly.Error()})
			}
		}
		if !slices.Equal(got, want) {
			f.t.Errorf("%s handled %q, want %q", n.Name, got, want)
		}
	}
}

// audited is path, type and error of what a node has logged about the method.
func (f *field) audited(n *cluster.Node) (all [][3]string) {
	f.t.Helper()
	entries, err := n.Audit(mount + "/")
	check(f.t, err)
	for _, e := range entries {
		all = append(all, [3]string{e.Request.Path, e.Type, e.Error})
	}
	return all
}

// oneOfThree answers each challenge on all nodes in the same moment.
func (f *field) oneOfThree(m *machine) {
	for round := range 9 {
		asked := f.Nodes[round%3]
		errs := f.atOnce(m, f.challenge(m, roleKnown, asked))
		in := 0
		for i, err := range errs {
			if err == nil {
				in++
				continue
			}
			f.refused(err, attest.RuleFreshness, "round %d, login on %s", round, f.Nodes[i].Name)
		}
		if in != 1 {
			f.t.Errorf("round %d: %d logins with one challenge: %v", round, in, errs)
		}
	}
}

// atOnce sends an answer to each node; all are ready before the first leaves.
func (f *field) atOnce(m *machine, c *attest.Challenge) []error {
	f.t.Helper()
	errs := make([]error, len(f.Nodes))
	gate := make(chan struct{})
	var group sync.WaitGroup
	for i, n := range f.Nodes {
		client := f.client(n)
		node := client.Nodes()[0]
		login, err := m.answer(c, roleKnown, node)
		check(f.t, err)
		client.Health(f.t.Context()) // connects
		group.Go(func() {
			<-gate
			_, errs[i] = client.Login(f.t.Context(), node, *login)
		})
	}
	close(gate)
	group.Wait()
	return errs
}

// shutOut shuts a host out by way of each node, and asks every node from then on.
func (f *field) shutOut() {
	for i, by := range f.Nodes {
		m := f.enrol([]string{"alpha", "beta", "gamma"}[i])
		f.in(m, roleKnown)
		early := map[*cluster.Node]*attest.Challenge{}
		for _, n := range f.Nodes {
			early[n] = f.challenge(m, roleKnown, n)
		}
		f.shut(by, m.name)
		for _, n := range f.Nodes {
			f.refused(f.login(m, roleKnown, early[n], n), ruleWhenShut, "shut by %s, challenge of before, login on %s", by.Name, n.Name)
			_, err := m.getIn(f.t.Context(), f.client(n), roleKnown)
			f.refused(err, ruleWhenShut, "shut by %s, asked on %s", by.Name, n.Name)
		}
	}
}

// pluginKilled kills the leader's plugin between challenge and login.
func (f *field) pluginKilled(m *machine) {
	leader := f.leader()
	c := f.challenge(m, roleKnown, leader)
	before, err := leader.Plugins()
	check(f.t, err)
	check(f.t, leader.KillPlugins())
	f.in(m, roleKnown)
	f.refused(f.login(m, roleKnown, c, leader), attest.RuleChallenge, "challenge of the process that is gone")
	after, err := leader.Plugins()
	check(f.t, err)
	if len(before) != 1 || len(after) != 1 || before[0].PID == after[0].PID {
		f.t.Errorf("plugin processes %v, after the kill %v", before, after)
	}
}

// leaderEnds takes the leader away between challenge and login. The host, which
// knows all addresses, starts over and gets in; the first conversation that
// begins when there is a leader again succeeds.
func (f *field) leaderEnds(m *machine, end func(*cluster.Node) error) {
	ctx, client, leader := f.t.Context(), f.client(), f.leader()
	c, node, err := m.challenge(ctx, client, roleKnown)
	check(f.t, err)
	began := time.Now()
	check(f.t, end(leader))
	waits := make(chan error, 1)
	go func() {
		if m.login(ctx, client, c, roleKnown, node) == nil {
			f.t.Error("a login with the challenge of a leader that is gone")
		}
		_, err := m.getIn(ctx, client, roleKnown)
		waits <- err
	}()
	next, err := f.WaitForLeader(ctx, began)
	check(f.t, err)
	there := time.Now()
	f.t.Logf("%s leads %s after %s ended", next.Name, since(began), leader.Name)
	conversations, err := m.getIn(ctx, f.client(), roleKnown)
	if err != nil || conversations != 1 {
		f.t.Errorf("with a leader, %d conversations: %v", conversations, err)
	}
	f.t.Logf("a login works %s later", since(there))
	if err := <-waits; err != nil {
		f.t.Errorf("a host that starts over does not get in: %v", err)
	}
	f.t.Logf("the host that had a challenge is in %s after the end", since(began))
	check(f.t, leader.Start(ctx))
}

// stepsDownAndBack moves the leadership away and back within the life of a
// challenge. None that was made before is good afterwards.
func (f *field) stepsDownAndBack(m *machine) {
	ctx, first := f.t.Context(), f.leader()
	used, unused := f.challenge(m, roleKnown, first), f.challenge(m, roleKnown, first)
	check(f.t, f.login(m, roleKnown, used, first))
	f.refused(f.login(m, roleKnown, used, first), attest.RuleFreshness, "used challenge before the step-down")
	next, err := first.StepDown(ctx)
	check(f.t, err)
	f.dead(m, used, unused)
	f.in(m, roleKnown)

	// With two nodes left, the leadership can only go back.
	var third *cluster.Node
	for _, n := range f.Nodes {
		if n != first && n != next {
			third = n
		}
	}
	check(f.t, third.Stop())
	back, err := next.StepDown(ctx)
	check(f.t, err)
	if back != first {
		f.t.Fatalf("%s leads, want %s again", back.Name, first.Name)
	}
	check(f.t, third.Start(ctx))
	f.dead(m, used, unused)
	f.in(m, roleKnown)
}

// dead wants each challenge refused on each node, as of no process that lives.
func (f *field) dead(m *machine, challenges ...*attest.Challenge) {
	f.t.Helper()
	for i, c := range challenges {
		for _, n := range f.Nodes {
			f.refused(f.login(m, roleKnown, c, n), attest.RuleChallenge, "challenge %d on %s", i, n.Name)
		}
	}
}
