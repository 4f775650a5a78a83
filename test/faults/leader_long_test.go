// SPDX-License-Identifier: Apache-2.0

//go:build long

package faults_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/test/authority"
	"funlab.casa/omen/test/cluster"
	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

const (
	clusterCA   = "/etc/omen-agent/cluster-ca.pem"
	clusterRoot = "/etc/omen-agent/cluster-root.pem"
)

// A threesome is a host whose OpenBao is a cluster of three.
type threesome struct {
	*cluster.Cluster
	*world.Host
	lead *lead
	ttl  int // hours
}

// TestLeaderKilled kills the leader of a cluster between the challenge and the login of
// omen-agent run. The attempt goes on at the nodes that are left, whether it was the
// leader that was asked, or a standby that asked it.
func TestLeaderKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 8*time.Minute)
	t.Cleanup(cancel)
	c := newThreesome(ctx, t)
	for _, asked := range []string{"leader", "standby"} {
		for round := range 2 {
			t.Run(fmt.Sprintf("%s asked, %d", asked, round+1), func(t *testing.T) { c.leaderKilled(ctx, t, asked == "leader") })
		}
	}
	if left, err := c.lead.left(); err != nil || left > 0 {
		t.Errorf("%d objects or sessions are left in the TPM: %v", left, err)
	}
}

func (c *threesome) leaderKilled(ctx context.Context, t *testing.T, asked bool) {
	leader := check(c.WaitForLeader(ctx, time.Time{}))(t)
	others := check(c.Standbys(ctx))(t)
	addresses := []string{others[0].Address, leader.Address, others[1].Address}
	if asked {
		addresses[0], addresses[1] = addresses[1], addresses[0]
	}
	c.configure(t, addresses)
	killed := make(chan error, 1)
	c.lead.beforeQuote(func() { killed <- leader.Kill() })

	began := time.Now()
	daemon := check(c.StartDaemon(ctx))(t)
	must(t, c.AwaitSaid(ctx, 90*time.Second, "msg=renewed"))
	took := time.Since(began).Round(time.Millisecond)
	select {
	case err := <-killed:
		must(t, err)
	default:
		t.Fatal("no leader was killed")
	}
	if err := c.Said(`msg="renewal failed"`); err == nil {
		t.Error("it took more than one attempt")
	}
	t.Logf("%s was killed; renewed %s after the beginning", leader.Name, took)
	if code := check(daemon.Terminate(ctx))(t); code != 0 {
		t.Errorf("omen-agent run: exit code %d", code)
	}
	must(t, leader.Start(ctx))
}

// configure writes agent.toml, each time for certificates of another length.
func (c *threesome) configure(t *testing.T, addresses []string) {
	t.Helper()
	c.ttl++
	must(t, c.WriteFile(world.AgentConfig, fmt.Appendf(nil, `[openbao]
addresses = ["%s"]
ca_file   = %q
auth_path = "auth/tpm"
role      = %q
[tpm]
device    = %q
event_log = "none"
[pki]
path   = "pki"
anchor = %q
[[certificate]]
name        = "web"
profile     = "general"
usage       = "server"
common_name = "web.%s"
key         = "sealed"
ttl         = "%dh"
[certificate.files]
folder = "/etc/web/omen"
`, strings.Join(addresses, `", "`), clusterCA, world.AgentRole, c.lead.device(), clusterRoot, world.Domain, c.ttl), 0o644))
}

// newThreesome starts the cluster, and the host, which it knows.
func newThreesome(ctx context.Context, t *testing.T) *threesome {
	t.Helper()
	s := &story.Story{}
	t.Cleanup(func() { must(t, s.Close()) })
	check(story.BuildWorld(ctx, s))(t)
	c := &threesome{Host: s.Auth, lead: newLead(t, s.Auth), ttl: 20}
	plugin := cluster.Plugin{Name: "tpm", Version: world.PluginVersion, Binary: check(s.World.Tools.Program(world.PluginName))(t)}
	var err error
	c.Cluster, err = cluster.Start(ctx, cluster.Config{
		Plugins: []cluster.Plugin{plugin}, Multiplier: 2,
		Initialise: func(addresses []string) []cluster.Group { return initialise(t, s.World, addresses) },
	})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	leader := check(c.Leader(ctx))(t)
	root := check(check(leader.Admin())(t).Logical().ReadWithContext(ctx, "pki/cert/ca"))(t)
	must(t, c.WriteFile(clusterRoot, []byte(root.Data["certificate"].(string)+"\n"), 0o644))
	must(t, c.WriteFile(clusterCA, check(os.ReadFile(c.CAFile))(t), 0o644))
	c.configure(t, c.Addresses())
	id := check(c.Identify(ctx))(t)
	check(leader.Write(ctx, "auth/tpm/host/auth", map[string]any{
		"tpm_ids": []string{id.TPMID}, "roles": []string{world.AgentRole}, "pcr_digests": []string{id.PCRDigest},
	}))(t)
	check(story.Renew(ctx, c.Host, 0))(t)
	return c
}

// initialise makes a CA, a role of it for the host, and the auth method.
func initialise(t *testing.T, w *world.World, addresses []string) []cluster.Group {
	t.Helper()
	var audiences []string
	for _, address := range addresses {
		audiences = append(audiences, check(attest.Audience(address, "", "auth/tpm"))(t))
	}
	pem := func(der []byte) string { return string(authority.CertificatePEM(der)) }
	return []cluster.Group{
		{Name: "pki", Requests: []cluster.Request{
			{Name: "mount", Path: "sys/mounts/pki", Data: map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}}},
			{Name: "root", Path: "pki/root/generate/internal", Data: map[string]any{"common_name": "cluster root", "key_type": "ec", "ttl": "8760h"}},
			{Name: "role", Path: "pki/roles/auth.server", Data: map[string]any{
				"allowed_domains": []string{"web." + world.Domain}, "allow_bare_domains": true, "client_flag": false, "key_type": "ec",
				"key_usage": []string{"DigitalSignature"}, "max_ttl": "48h",
			}},
			{Name: "policy", Path: "sys/policies/acl/omen-host-auth", Data: map[string]any{"policy": `path "pki/sign/auth.server" { capabilities = ["update"] }`}},
		}},
		{Name: "tpm", Requests: []cluster.Request{
			{Name: "enable", Path: "sys/auth/tpm", Data: map[string]any{"type": "tpm"}},
			{Name: "config", Path: "auth/tpm/config", Data: map[string]any{
				"virtual_roots": pem(w.VendorRoot().Raw), "ek_intermediates": pem(w.VendorIssuer().Raw), "audiences": audiences,
			}},
			{Name: "role", Path: "auth/tpm/role/" + world.AgentRole, Data: map[string]any{
				"way_in": "allow-list", "ek_classes": "virtual", "pcr_bank": "sha256", "pcrs": []string{"0", "1", "2", "3", "4", "5", "6", "7"}, "token_no_default_policy": true,
			}},
		}},
	}
}
