// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A Plugin is an auth method in a binary of its own.
type Plugin struct {
	Name    string   // the type that a mount names: tpm
	Version string   // that the binary reports: v0.1.0
	Binary  string   // path
	Env     []string // NAME=value, for its process alone
}

// Command is the plugin's file in a node's plugin directory.
func (p Plugin) Command() string { return p.Name + "-" + p.Version }

// Place copies the plugin's binary into the node's plugin directory and returns
// the SHA-256 (hex) to register it with.
func (n *Node) Place(p Plugin) (digest string, err error) {
	target := filepath.Join(n.processes.dir, p.Command())
	source, err := os.Open(p.Binary)
	if err != nil {
		return "", fmt.Errorf("place plugin: %w", err)
	}
	defer func() { _ = source.Close() }()
	// A new file, so that a running plugin keeps its own.
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("place plugin: %w", err)
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return "", fmt.Errorf("place plugin: %w", err)
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, hash), source)
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("place plugin: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Declare places the plugin and adds it to the node's configuration, which the
// server reads at its next start.
func (n *Node) Declare(p Plugin) error {
	digest, err := n.Place(p)
	if err != nil {
		return err
	}
	env := ""
	if len(p.Env) > 0 {
		env = "  env       = " + renderValue("", p.Env) + "\n"
	}
	n.plugins = append(n.plugins, fmt.Sprintf(
		"plugin \"auth\" %q {\n  command   = %q\n  version   = %q\n  sha256sum = %q\n%s}\n",
		p.Name, p.Command(), p.Version, digest, env))
	return n.writeConfig()
}
