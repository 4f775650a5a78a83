// SPDX-License-Identifier: Apache-2.0

package order

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"funlab.casa/omen/install/unitfile"
)

// lay writes unit files below a root, and links where a text begins with ->.
func lay(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if to, link := strings.CutPrefix(text, "->"); link {
			check(t, os.Symlink(to, path))
			continue
		}
		check(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// network is what a host of today has, as its files say it.
var network = map[string]string{
	"usr/lib/systemd/system/network-online.target":   "[Unit]\nAfter=network.target\n",
	"usr/lib/systemd/system/network.target":          "[Unit]\nAfter=network-pre.target\n",
	"usr/lib/systemd/system/basic.target":            "[Unit]\nAfter=sysinit.target sockets.target\n",
	"usr/lib/systemd/system/omen-agent.service":      "[Unit]\nAfter=network-online.target\nAfter=omen-agent-unseal.service\nBefore=keylime_agent.service\n",
	"usr/lib/systemd/system/keylime_agent.service":   "[Unit]\nAfter=network-online.target\n",
	"usr/lib/systemd/system/multi-user.target":       "[Unit]\nAfter=basic.target\n",
	"usr/lib/systemd/system/nss-lookup.target":       "[Unit]\n",
	"etc/systemd/system/multi-user.target.wants/x":   "->/usr/lib/systemd/system/nginx.service",
	"usr/lib/systemd/system/nginx.service":           "[Unit]\nAfter=network-online.target\n",
	"usr/lib/systemd/system/" + unitfile.Unseal:      "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\nBefore=omen-agent.service\n",
	"usr/lib/systemd/system/local-fs.target":         "[Unit]\nDefaultDependencies=no\n",
	"usr/lib/systemd/system/wpa_supplicant.service":  "[Unit]\nBefore=network.target\nAfter=dbus.service\nWants=network.target\n",
	"usr/lib/systemd/system/wpa_supplicant@.service": "[Unit]\nBefore=network.target\n",
	"usr/lib/systemd/system/named.service":           "[Unit]\nAfter=network.target\nWants=nss-lookup.target\nBefore=nss-lookup.target\n",
}

// TestWay: which units cannot wait for an agent that waits for the network.
func TestWay(t *testing.T) {
	for name, row := range map[string]struct {
		more map[string]string
		unit string
		want string // the way; "" for none
	}{
		"a service of its own":     {nil, "nginx.service", ""},
		"one that is not there":    {nil, "apache2.service", ""},
		"one that the agent knows": {nil, "keylime_agent.service", ""},
		"a name server":            {nil, "named.service", ""},
		"before the network":       {nil, "wpa_supplicant.service", "wpa_supplicant.service network.target network-online.target omen-agent.service"},
		"an instance":              {nil, "wpa_supplicant@wlan0.service", "wpa_supplicant@wlan0.service network.target network-online.target omen-agent.service"},
		"by another name": {map[string]string{"etc/systemd/system/wifi.service": "->/usr/lib/systemd/system/wpa_supplicant.service"},
			"wifi.service", "wpa_supplicant.service network.target network-online.target omen-agent.service"},
		"before what comes before": {map[string]string{"etc/systemd/system/vpn.service": "[Unit]\nBefore=\\\n  net%i.service wpa_supplicant.service\n"},
			"vpn.service", "vpn.service wpa_supplicant.service network.target network-online.target omen-agent.service"},
		"another comes after it": {map[string]string{"etc/systemd/system/net.service": "[Unit]\nAfter=vpn.service\nBefore=network.target\n"},
			"vpn.service", "vpn.service net.service network.target network-online.target omen-agent.service"},
		"a drop-in": {map[string]string{"etc/systemd/system/nginx.service.d/early.conf": "[Unit]\nBefore=network-online.target\n"},
			"nginx.service", "nginx.service network-online.target omen-agent.service"},
		"a line that is none": {map[string]string{"etc/systemd/system/vpn.service": "[Unit]\nthis is no setting\nBefore=network.target\n"},
			"vpn.service", "vpn.service network.target network-online.target omen-agent.service"},
		"of all instances": {map[string]string{"etc/systemd/system/vpn@.service": "[Unit]\n", "etc/systemd/system/vpn@.service.d/a.conf": "[Unit]\nBefore=net@%i.service\n",
			"etc/systemd/system/net@.service": "[Unit]\nBefore=network.target\n"},
			"vpn@a.service", "vpn@a.service net@a.service network.target network-online.target omen-agent.service"},
		"wanted by the target": {map[string]string{"etc/systemd/system/network-online.target.wants/nginx.service": "->/usr/lib/systemd/system/nginx.service",
			"etc/systemd/system/nginx.service": "[Unit]\n"}, "nginx.service", "nginx.service network-online.target omen-agent.service"},
		"wanted by the target it comes after": {map[string]string{"etc/systemd/system/network-online.target.wants/nginx.service": "->/usr/lib/systemd/system/nginx.service"},
			"nginx.service", ""},
		"wanted, and without a default order": {map[string]string{"etc/systemd/system/network-online.target.wants/nginx.service": "->/usr/lib/systemd/system/nginx.service",
			"etc/systemd/system/nginx.service": "[Unit]\nDefaultDependencies=no\n"}, "nginx.service", ""},
		"early": {map[string]string{"etc/systemd/system/early.service": "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target\n"},
			"early.service", "early.service sysinit.target omen-agent.service"},
		"overridden": {map[string]string{"etc/systemd/system/wpa_supplicant.service": "[Unit]\nAfter=network.target\n"}, "wpa_supplicant.service", ""},
		"masked":     {map[string]string{"etc/systemd/system/wpa_supplicant.service": "->/dev/null"}, "wpa_supplicant.service", ""},
		"no file":    {map[string]string{"etc/systemd/system/wpa_supplicant.service/x": ""}, "wpa_supplicant.service", ""},
		"a ring of links": {map[string]string{"etc/systemd/system/a.service": "->b.service", "etc/systemd/system/b.service": "->a.service"},
			"a.service", ""},
	} {
		root := t.TempDir()
		lay(t, root, network)
		lay(t, root, row.more)
		if got := strings.Join(readSequence(root).way(row.unit, unitfile.Agent), " "); got != row.want {
			t.Errorf("%s: %q, not %q", name, got, row.want)
		}
	}
}

// before is what the units of a host are ordered before, by its generator.
func before(t *testing.T, root, unit string) (agent, unseal []string, err error) {
	t.Helper()
	folder, err := runBelow(t, root, "[[certificate]]\nname = \"web\"\nprofile = \"general\"\n[certificate.service]\nunit = \""+unit+"\"\n", []string{"/dev/tpmrm0"})
	for name, list := range map[string]*[]string{unitfile.Agent: &agent, unitfile.Unseal: &unseal} {
		text, failed := os.ReadFile(filepath.Join(folder, name+".d/50-order.conf"))
		check(t, failed)
		for line := range strings.Lines(string(text)) {
			if one, is := strings.CutPrefix(line, "Before="); is {
				*list = append(*list, strings.TrimSpace(one))
			}
		}
	}
	return agent, unseal, err
}

// TestEarlyUnits: a unit that cannot wait for the agent is said, and waits for the
// unsealing, which needs no network; one that comes before that too for nothing.
func TestEarlyUnits(t *testing.T) {
	root := t.TempDir()
	lay(t, root, network)
	lay(t, root, map[string]string{"etc/systemd/system/disk.service": "[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n"})
	for unit, row := range map[string]struct{ agent, unseal []string }{
		"nginx.service":          {[]string{"nginx.service"}, []string{"nginx.service"}},
		"wpa_supplicant.service": {nil, []string{"wpa_supplicant.service"}},
		"disk.service":           {nil, nil},
	} {
		agent, unseal, err := before(t, root, unit)
		if !slices.Equal(agent, row.agent) || !slices.Equal(unseal, row.unseal) {
			t.Errorf("%s: the agent is before %v, the unsealing before %v", unit, agent, unseal)
		}
		if said := err != nil && strings.Contains(err.Error(), "unit "+unit+" does not wait for the agent"); said != (row.agent == nil) {
			t.Errorf("%s: %v", unit, err)
		}
	}
}
