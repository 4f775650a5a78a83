// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"funlab.casa/omen/test/cluster"
)

// One node, with two versions of the plugin declared, is measured, killed and
// started again; then nothing is left of it.
func TestOneNode(t *testing.T) {
	v, parent, ctx := newVendor(t), t.TempDir(), t.Context()
	c, err := cluster.Start(ctx, cluster.Config{
		Nodes: 1, Multiplier: 2, Parent: parent,
		Plugins:    []cluster.Plugin{pluginOf(versions[0]), pluginOf(versions[1])},
		Initialise: func(addresses []string) []cluster.Group { return method(t, v, addresses) },
	})
	check(t, err)
	defer func() { check(t, c.Close()) }()
	f := &field{Cluster: c, t: t, vendor: v}
	n := c.Nodes[0]

	applies, err := n.RaftApplies(ctx)
	check(t, err)
	before, _, err := n.RaftIndex(ctx)
	check(t, err)
	m := f.enrol("spire")
	f.in(m, roleKnown)
	after, _, err := n.RaftIndex(ctx)
	check(t, err)
	if more, err := n.RaftApplies(ctx); err != nil || more < applies+2 || after < before+2 {
		t.Errorf("a host and its pin are written by %d applies, %d entries: %v", more-applies, after-before, err)
	}
	f.hasMemory(n)

	check(t, n.Kill())
	if left, err := n.Plugins(); err != nil || len(left) != 0 || n.Running() {
		t.Errorf("after the kill there are the plugins %v: %v", left, err)
	}
	if _, err := c.Leader(ctx); err == nil {
		t.Error("a killed node leads")
	}
	check(t, n.Start(ctx))
	f.in(m, roleKnown)

	check(t, c.Close())
	if left, err := n.Plugins(); err != nil || len(left) != 0 || n.Running() {
		t.Errorf("after Close there are the plugins %v: %v", left, err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("Close leaves %v: %v", left, err)
	}
}

func (f *field) hasMemory(n *cluster.Node) {
	f.t.Helper()
	server, err := n.Server()
	check(f.t, err)
	processes, err := n.Plugins()
	check(f.t, err)
	if len(processes) != 1 {
		f.t.Errorf("plugins %v, want one", processes)
	}
	for _, p := range append(processes, server) {
		if rss, err := p.RSS(); err != nil || rss < 1<<20 {
			f.t.Errorf("%s has %d bytes: %v", p.Program, rss, err)
		}
	}
}

// A cluster that cannot start leaves nothing and says what the server said.
func TestStartFails(t *testing.T) {
	parent := t.TempDir()
	absent := filepath.Join(parent, "absent")
	for what, config := range map[string]cluster.Config{
		"two nodes":    {Nodes: 2, Parent: parent},
		"no server":    {Nodes: 1, Parent: parent, Bao: absent},
		"no plugin":    {Nodes: 1, Parent: parent, Plugins: []cluster.Plugin{{Name: "tpm", Version: "v0.1.0", Binary: absent}}},
		"no directory": {Nodes: 1, Parent: absent},
		"log_level":    {Nodes: 1, Parent: parent, LogLevel: "loud"},
	} {
		c, err := cluster.Start(t.Context(), config)
		if err == nil {
			t.Errorf("%s: a cluster starts", what)
			check(t, c.Close())
		}
		if what == "log_level" && !strings.Contains(err.Error(), "loud") {
			t.Errorf("%s: the error is %v", what, err)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
			t.Errorf("%s leaves %v: %v", what, left, err)
		}
	}
}
