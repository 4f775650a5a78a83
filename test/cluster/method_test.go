// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/test/cluster"
)

const mount = "auth/tpm"

// The roles: with the second, every login proves the EK.
const (
	roleKnown    = "known"
	roleActivate = "activate"
)

// field is a cluster with the auth method, and what a test needs to play on it.
type field struct {
	*cluster.Cluster
	t      *testing.T
	vendor vendor
}

func newField(t *testing.T, config cluster.Config) *field {
	t.Helper()
	v := newVendor(t)
	config.Plugins = []cluster.Plugin{pluginOf(versions[0])}
	config.Initialise = func(addresses []string) []cluster.Group { return method(t, v, addresses) }
	return &field{Cluster: start(t, config), t: t, vendor: v}
}

// on is the same field in a subtest.
func (f *field) on(t *testing.T) *field { return &field{Cluster: f.Cluster, t: t, vendor: f.vendor} }

// method mounts and configures the auth method.
func method(t *testing.T, v vendor, addresses []string) []cluster.Group {
	t.Helper()
	var audiences []string
	for _, address := range addresses {
		audience, err := attest.Audience(address, "", mount)
		check(t, err)
		audiences = append(audiences, audience)
	}
	role := func(name string, always bool) cluster.Request {
		return cluster.Request{Name: "role-" + name, Path: mount + "/role/" + name, Data: map[string]any{
			"pcrs": []string{"0", "2", "4", "7"}, "always_activate": always, "way_in": "allow-list", "ek_classes": "virtual",
		}}
	}
	return []cluster.Group{{Name: "tpm", Requests: []cluster.Request{
		{Name: "enable", Path: "sys/" + mount, Data: map[string]any{"type": "tpm", "plugin_version": versions[0]}},
		{Name: "config", Path: mount + "/config", Data: map[string]any{"virtual_roots": v.pem(), "audiences": audiences}},
		role(roleKnown, false), role(roleActivate, true),
	}}}
}

// enrol makes a machine that may use both roles.
func (f *field) enrol(name string) *machine {
	f.t.Helper()
	m := f.vendor.machine(f.t, name)
	f.write(mount+"/host/"+name, map[string]any{
		"tpm_ids": []string{string(m.id)}, "roles": []string{roleKnown, roleActivate},
	})
	return m
}

// shut takes a host's access away, by way of one node.
func (f *field) shut(by *cluster.Node, host string) {
	f.t.Helper()
	_, err := by.Write(f.t.Context(), mount+"/host/"+host+"/quarantine", nil)
	check(f.t, err)
}

// ruleWhenShut is the rule that refuses a host which was shut out.
const ruleWhenShut = attest.RuleHostDisabled

func (f *field) write(path string, data map[string]any) {
	f.t.Helper()
	_, err := f.leader().Write(f.t.Context(), path, data)
	check(f.t, err)
}

func (f *field) leader() *cluster.Node {
	f.t.Helper()
	n, err := f.Leader(f.t.Context())
	check(f.t, err)
	return n
}

// client asks these nodes, in this order; without nodes, all.
func (f *field) client(nodes ...*cluster.Node) *bao.Client {
	f.t.Helper()
	addresses := f.Addresses()
	if len(nodes) > 0 {
		addresses = nil
	}
	for _, n := range nodes {
		addresses = append(addresses, n.Address)
	}
	client, err := bao.New(bao.Config{Addresses: addresses, CAFile: f.CAFile, AuthPath: mount})
	check(f.t, err)
	f.t.Cleanup(client.Close)
	return client
}

// in lets a machine log in, where it must.
func (f *field) in(m *machine, role string, nodes ...*cluster.Node) {
	f.t.Helper()
	if _, err := m.getIn(f.t.Context(), f.client(nodes...), role); err != nil {
		f.t.Fatalf("%s does not get in: %v", m.name, err)
	}
}

// challenge is one of this node, where there must be one.
func (f *field) challenge(m *machine, role string, by *cluster.Node) *attest.Challenge {
	f.t.Helper()
	c, _, err := m.challenge(f.t.Context(), f.client(by), role)
	check(f.t, err)
	return c
}

// login answers a challenge at a node, which need not be the one that made it.
func (f *field) login(m *machine, role string, c *attest.Challenge, at *cluster.Node) (err error) {
	f.t.Helper()
	client := f.client(at)
	node := client.Nodes()[0]
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	// A standby that does not reach the new leader yet points to it, and has looked at
	// nothing.
	_ = cluster.Await(ctx, func(ctx context.Context) error {
		err = m.login(ctx, client, c, role, node)
		if e := new(bao.Error); errors.As(err, &e) && e.Kind == bao.KindRedirect {
			return err
		}
		return nil
	})
	return err
}

// refused fails unless err is this refusal.
func (f *field) refused(err error, want attest.Rule, format string, args ...any) {
	f.t.Helper()
	var e *bao.Error
	if !errors.As(err, &e) || e.Rule != want {
		f.t.Errorf(format+": got %v, want the refusal %s", append(args, err, want)...)
	}
}
