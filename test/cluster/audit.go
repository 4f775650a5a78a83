// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// An AuditEntry is one line of a node's audit log, as far as it is needed here.
type AuditEntry struct {
	Type    string // request or response
	Error   string
	Request struct {
		ID            string
		Operation     string
		Path          string
		ForwardedFrom string `json:"forwarded_from"`
	}
}

// AuditFile is the node's own audit log.
func (n *Node) AuditFile() string { return filepath.Join(n.dir, "audit.log") }

// Audit is what the node has logged about the paths that begin with prefix,
// oldest first.
func (n *Node) Audit(prefix string) ([]AuditEntry, error) {
	file, err := os.Open(n.AuditFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var found []AuditEntry
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var entry AuditEntry
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			return nil, fmt.Errorf("%s: audit: %w", n.Name, err)
		}
		if strings.HasPrefix(entry.Request.Path, prefix) {
			found = append(found, entry)
		}
	}
	return found, lines.Err()
}
