// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"funlab.casa/omen/test/cluster"
)

// upgrades is the last part of TestThreeNodes: the plugin's next version comes by
// the servers' configuration, the one after it by the API. Meanwhile hosts log in
// without end, and each that starts over once gets in.
func (f *field) upgrades(m *machine) {
	f.t.Run("declared", func(t *testing.T) { f.on(t).whileLoggingIn(m, versions[1], f.declare) })
	f.t.Run("registered", func(t *testing.T) { f.on(t).whileLoggingIn(m, versions[2], f.register) })
}

// whileLoggingIn lets hosts log in until the change is done, and looks at what
// runs afterwards.
func (f *field) whileLoggingIn(m *machine, version string, change func(version string) error) {
	f.runs(versions[slices.Index(versions, version)-1])
	var changed error
	done := make(chan struct{})
	go func() { defer close(done); changed = change(version) }()
	count, again, err := f.logIns(m, done)
	<-done
	check(f.t, changed)
	if err != nil {
		f.t.Fatalf("after %d logins, %d of them in the second conversation: %v", count, again, err)
	}
	f.t.Logf("%d logins, %d of them in the second conversation", count, again)
	f.runs(version)
}

// logIns has hosts log in, one after the other, until done, and once more.
func (f *field) logIns(m *machine, done <-chan struct{}) (count, again int, err error) {
	client := f.client()
	for ended := false; !ended; count++ {
		select {
		case <-done:
			ended = true
		default:
		}
		conversations, err := m.getIn(f.t.Context(), client, roleKnown)
		if err != nil {
			return count, again, err
		}
		again += conversations - 1
	}
	return count, again, nil
}

// runs fails unless every node comes to say that it runs this version, and does:
// standbys reload a moment after the leader.
func (f *field) runs(version string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	for _, n := range f.Nodes {
		check(f.t, cluster.Await(ctx, func(ctx context.Context) error { return running(ctx, n, version) }))
	}
}

func running(ctx context.Context, n *cluster.Node, version string) error {
	client, err := n.Admin()
	if err != nil {
		return err
	}
	mounts, err := client.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return err
	}
	if got := mounts["tpm/"].RunningVersion; got != version {
		return fmt.Errorf("%s says it runs %s, want %s", n.Name, got, version)
	}
	processes, err := n.Plugins()
	if err == nil && (len(processes) != 1 || processes[0].Program != pluginOf(version).Command()) {
		err = fmt.Errorf("%s runs %v, want %s", n.Name, processes, version)
	}
	return err
}

// declare adds the version to each node's configuration and restarts it, the
// leader last; then it points the mount to it.
func (f *field) declare(version string) error {
	ctx := f.t.Context()
	leader, err := f.Leader(ctx)
	if err != nil {
		return err
	}
	nodes := slices.DeleteFunc(slices.Clone(f.Nodes), func(n *cluster.Node) bool { return n == leader })
	for _, n := range append(nodes, leader) {
		if err := n.Declare(pluginOf(version)); err != nil {
			return err
		}
		if err := n.Stop(); err != nil {
			return err
		}
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	return f.point(version)
}

// register gives the version to each node's directory and the catalogue; then it
// points the mount to it.
func (f *field) register(version string) error {
	var digest string
	for _, n := range f.Nodes {
		var err error
		if digest, err = n.Place(pluginOf(version)); err != nil {
			return err
		}
	}
	_, err := f.Nodes[0].Write(f.t.Context(), "sys/plugins/catalog/auth/tpm", map[string]any{
		"sha256": digest, "command": pluginOf(version).Command(), "version": version,
	})
	if err != nil {
		return err
	}
	return f.point(version)
}

// point has the mount run a version, on all nodes.
func (f *field) point(version string) error {
	ctx := f.t.Context()
	leader, err := f.Leader(ctx)
	if err != nil {
		return err
	}
	if _, err := leader.Write(ctx, "sys/"+mount+"/tune", map[string]any{"plugin_version": version}); err != nil {
		return err
	}
	_, err = leader.Write(ctx, "sys/plugins/reload/backend", map[string]any{"plugin": "tpm", "scope": "global"})
	return err
}
