// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfig writes node.hcl.
func (n *Node) writeConfig() error {
	text := n.serverConfig()
	for _, other := range n.cluster.Nodes {
		if other != n {
			text = strings.Replace(text, retryMark, n.retryJoin(other)+retryMark, 1)
		}
	}
	text = strings.Replace(text, retryMark, "", 1)
	text += strings.Join(n.plugins, "")
	if n.first {
		text += n.cluster.administrator().render()
		if initialise := n.cluster.config.Initialise; initialise != nil {
			for _, g := range initialise(n.cluster.Addresses()) {
				text += g.render()
			}
		}
	}
	// It holds the administrator's password.
	return os.WriteFile(filepath.Join(n.dir, "node.hcl"), []byte(text), 0o600)
}

func (n *Node) serverConfig() string {
	level := n.cluster.config.LogLevel
	if level == "" {
		level = "info"
	}
	multiplier := n.cluster.config.Multiplier
	if multiplier == 0 {
		multiplier = 5
	}
	return strings.NewReplacer("{multiplier}", fmt.Sprint(multiplier), "{name}", n.Name, "{dir}", n.dir, "{seal}", filepath.Join(n.cluster.dir, "seal.key"),
		"{port}", fmt.Sprint(n.port), "{peer}", fmt.Sprint(n.peerPort), "{level}", level).Replace(serverConfig)
}

func (n *Node) retryJoin(other *Node) string {
	return fmt.Sprintf("  retry_join {\n    leader_api_addr     = %q\n    leader_ca_cert_file = %q\n  }\n",
		other.Address, n.cluster.CAFile)
}

const retryMark = "  # others\n"

// The autopilot looks more often than it does by itself, so that new nodes vote
// soon.
const serverConfig = `disable_mlock = true
log_level     = "{level}"
api_addr      = "https://127.0.0.1:{port}"
cluster_addr  = "https://127.0.0.1:{peer}"
listener "tcp" {
  address          = "127.0.0.1:{port}"
  cluster_address  = "127.0.0.1:{peer}"
  tls_cert_file    = "{dir}/tls.crt"
  tls_key_file     = "{dir}/tls.key"
  max_request_size = 3145728
  telemetry {
    unauthenticated_metrics_access = true
  }
}
telemetry {
  prometheus_retention_time = "1h"
  disable_hostname          = true
}
storage "raft" {
  path    = "{dir}/data"
  node_id = "{name}"
  performance_multiplier       = {multiplier}
  autopilot_update_interval    = "200ms"
  autopilot_reconcile_interval = "500ms"
` + retryMark + `}
seal "static" {
  current_key_id = "1"
  current_key    = "file://{seal}"
}
audit "file" "file" {
  options {
    file_path = "audit.log"
  }
}
plugin_directory     = "{dir}/plugins"
plugin_auto_register = true
`
