// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Metrics says where the figures of a running agent can be read. By default they
// are nowhere.
type Metrics struct {
	Textfile string `toml:"textfile"` // for node_exporter's textfile collector
	Listen   string `toml:"listen"`   // address:port on this host's loopback
}

// textfileSuffix is what node_exporter reads; other names it passes over.
const textfileSuffix = ".prom"

func (c *Config) checkMetrics() *fault {
	m := c.Metrics
	if m.Textfile != "" {
		if f := checkTextfile(m.Textfile); f != nil {
			return f
		}
	}
	if m.Listen == "" {
		return nil
	}
	address, err := netip.ParseAddrPort(m.Listen)
	switch {
	case err != nil || address.Port() == 0:
		return wrong("metrics", 0, "listen", `an IP address and a port, for example listen = "127.0.0.1:9464"`, "listen = %q", m.Listen)
	case !address.Addr().IsLoopback() || address.Addr().Zone() != "":
		return wrong("metrics", 0, "listen", "127.0.0.1 or ::1: who asks is not known and nothing is encrypted. For a server elsewhere use textfile and node_exporter",
			"listen = %q can be reached from other hosts", m.Listen)
	}
	return nil
}

func checkTextfile(path string) *fault {
	const hint = "an absolute path without links, ending in .prom, in the folder that node_exporter reads: " +
		`textfile = "/var/lib/prometheus/node-exporter/omen-agent.prom"`
	folder, name := filepath.Split(path)
	switch {
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || folder == "/":
	case !strings.HasSuffix(name, textfileSuffix) || strings.HasPrefix(name, "."):
	case slices.ContainsFunc(ours, func(own string) bool { return strings.HasPrefix(path, own) }):
		return wrong("metrics", 0, "textfile", hint, "textfile = %q: in a folder that only holds what the agent keeps", path)
	default:
		return nil
	}
	return wrong("metrics", 0, "textfile", hint, "textfile = %q", path)
}
