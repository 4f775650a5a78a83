// SPDX-License-Identifier: Apache-2.0

package herd

import (
	"context"
	"fmt"
	"runtime"

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

// newFleet starts three nodes and makes the hosts, which nobody has heard of yet.
func newFleet(ctx context.Context, o Options) (*fleet, error) {
	vendor, err := attacker.NewVendor(attacker.P256)
	if err != nil {
		return nil, err
	}
	c, err := cluster.Start(ctx, cluster.Config{Parent: o.Parent, LogLevel: "warn", Plugins: []cluster.Plugin{
		{Name: "tpm", Version: world.PluginVersion, Binary: o.Plugin},
	}})
	if err != nil {
		return nil, err
	}
	f := &fleet{cluster: c, vendor: vendor.PEM(), hosts: make([]*host, o.Hosts)}
	if f.leader, err = c.Leader(ctx); err != nil {
		return f, err
	}
	group := errgroup.Group{}
	group.SetLimit(runtime.NumCPU())
	for i := range f.hosts {
		group.Go(func() (err error) {
			f.hosts[i], err = newHost(i, vendor, c)
			return err
		})
	}
	return f, group.Wait()
}

// newHost makes one host. Hosts prefer different nodes, as a fleet does whose
// configurations list them in different orders.
func newHost(i int, vendor *attacker.Vendor, c *cluster.Cluster) (*host, error) {
	tpm, err := attacker.NewTPM(vendor, attacker.P256)
	if err != nil {
		return nil, err
	}
	addresses := c.Addresses()
	first := i % len(addresses)
	client, err := bao.New(bao.Config{
		Addresses: append(addresses[first:], addresses[:first]...), CAFile: c.CAFile, AuthPath: path,
	})
	return &host{name: fmt.Sprintf("bench-%05d", i), tpm: tpm, client: client}, err
}

// Close ends the servers.
func (f *fleet) Close() error { return f.cluster.Close() }

// batch is how many hosts one import lists: OpenBao takes 1,000 strings in a request.
const batch = 100

// enrol makes the mount, lists all hosts and has each log in once.
func (f *fleet) enrol(ctx context.Context) error {
	if err := f.mount(ctx); err != nil {
		return err
	}
	for from := 0; from < len(f.hosts); from += batch {
		if err := f.list(ctx, f.hosts[from:min(from+batch, len(f.hosts))]); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for _, h := range f.hosts {
		group.Go(func() error {
			defer h.client.Close()
			if err := h.logIn(ctx); err != nil {
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

// list puts hosts on the allow-list.
func (f *fleet) list(ctx context.Context, hosts []*host) error {
	lines := make([]map[string]any, len(hosts))
	for i, h := range hosts {
		id, err := h.tpm.ID()
		if err != nil {
			return err
		}
		lines[i] = map[string]any{"name": h.name, "tpm_ids": []string{string(id)}, "roles": []string{role}}
	}
	answer, err := f.leader.Write(ctx, path+"/inventory", map[string]any{"hosts": lines})
	if err != nil {
		return err
	}
	if refused, _ := answer.Data["refused"].(map[string]any); len(refused) > 0 {
		return fmt.Errorf("inventory refused: %v", refused)
	}
	return nil
}
