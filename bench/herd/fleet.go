// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/internal/bao"
	"funlab.casa/omen/test/cluster"
	"funlab.casa/omen/test/world"
)

// A fleet is all hosts and the cluster that knows them.
type fleet struct {
	cluster *cluster.Cluster
	leader  *cluster.Node
	vendor  string // PEM
	hosts   []*host
}

// multiplier of raft's time-outs, twice OpenBao's own: three nodes and ten
// thousand callers share the machine's processors.
const multiplier = 10

// newFleet makes the hosts, which nobody has heard of yet, and starts three nodes.
func newFleet(ctx context.Context, o Options) (*fleet, error) {
	vendor, err := attacker.NewVendor(attacker.P256)
	if err != nil {
		return nil, err
	}
	f := &fleet{vendor: vendor.PEM(), hosts: make([]*host, o.Hosts)}
	wires := make(chan struct{}, maxConnecting)
	group := errgroup.Group{}
	group.SetLimit(runtime.NumCPU())
	for i := range f.hosts {
		group.Go(func() (err error) {
			f.hosts[i] = &host{name: fmt.Sprintf("bench-%05d", i), wires: wires}
			f.hosts[i].tpm, err = attacker.NewTPM(vendor, attacker.P256)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	f.cluster, err = cluster.Start(ctx, cluster.Config{Parent: o.Parent, LogLevel: "warn", Multiplier: multiplier, Plugins: []cluster.Plugin{
		{Name: "tpm", Version: world.PluginVersion, Binary: o.Plugin},
	}})
	if err != nil {
		return nil, err
	}
	if err := f.introduce(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// introduce gives each host a client. Hosts prefer different nodes, as a fleet does
// whose configurations list them in different orders.
func (f *fleet) introduce(ctx context.Context) (err error) {
	if f.leader, err = f.cluster.Leader(ctx); err != nil {
		return err
	}
	addresses := f.cluster.Addresses()
	for i, h := range f.hosts {
		first := i % len(addresses)
		h.client, err = bao.New(bao.Config{
			Addresses: slices.Concat(addresses[first:], addresses[:first]), CAFile: f.cluster.CAFile, AuthPath: path,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close ends the servers.
func (f *fleet) Close() error { return f.cluster.Close() }

// enrol makes the mount and lists all hosts.
func (f *fleet) enrol(ctx context.Context) error {
	if err := f.mount(ctx); err != nil {
		return err
	}
	return f.list(ctx)
}

// pin has each host log in once, however often it has to try.
func (f *fleet) pin(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for _, h := range f.hosts {
		group.Go(func() error {
			defer h.client.Close()
			if err := h.getIn(ctx, new(course)); err != nil {
				return fmt.Errorf("first login of %s: %w", h.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (f *fleet) mount(ctx context.Context) error {
	var audiences []string
	for _, node := range f.hosts[0].client.Nodes() {
		audiences = append(audiences, node.Audience)
	}
	for _, w := range []struct {
		path string
		data map[string]any
	}{
		{"sys/" + path, map[string]any{"type": "tpm"}},
		{path + "/config", map[string]any{"hardware_roots": f.vendor, "audiences": audiences}},
		{path + "/role/" + role, map[string]any{
			"pcr_bank": "sha256", "pcrs": "0,1,2,3,4,5,6,7", "token_no_default_policy": true,
			"way_in": "allow-list", "ek_classes": "hardware",
		}},
	} {
		if _, err := f.leader.Write(ctx, w.path, w.data); err != nil {
			return err
		}
	}
	return nil
}

// list puts all hosts on the allow-list, by one import.
func (f *fleet) list(ctx context.Context) error {
	lines := make([]map[string]any, len(f.hosts))
	for i, h := range f.hosts {
		id, err := h.tpm.ID()
		if err != nil {
			return err
		}
		lines[i] = map[string]any{"name": h.name, "tpm_ids": []string{string(id)}, "roles": []string{role}}
	}
	text, err := json.Marshal(lines)
	if err != nil {
		return err
	}
	answer, err := f.leader.Write(ctx, path+"/inventory", map[string]any{"hosts": string(text)})
	if err != nil {
		return err
	}
	if refused, _ := answer.Data["refused"].(map[string]any); len(refused) > 0 {
		return fmt.Errorf("inventory refused: %v", refused)
	}
	return nil
}
