// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/BurntSushi/toml"
)

// settings are the keys of [agent] that matter here, by the agent's names and
// with its defaults.
type settings struct {
	UUID            string `toml:"uuid"`
	IP              string `toml:"ip"`
	Port            int    `toml:"port"`
	MTLS            bool   `toml:"enable_agent_mtls"`
	KeylimeDir      string `toml:"keylime_dir"`
	ServerKey       string `toml:"server_key"`
	ServerCert      string `toml:"server_cert"`
	TrustedClientCA string `toml:"trusted_client_ca"`
	RunAs           string `toml:"run_as"`
	TPMHashAlg      string `toml:"tpm_hash_alg"`
	TPMEncAlg       string `toml:"tpm_encryption_alg"`
	TPMSignAlg      string `toml:"tpm_signing_alg"`
}

var defaults = settings{
	UUID: "d432fbb3-d2f1-4a97-9ef7-75bd81c00000", IP: "127.0.0.1", Port: 9002, MTLS: true,
	KeylimeDir: "/var/lib/keylime", ServerKey: "default", ServerCert: "default", TrustedClientCA: "default",
	RunAs: "keylime:tss", TPMHashAlg: "sha256", TPMEncAlg: "rsa", TPMSignAlg: "rsassa",
}

// loadConfig reads the files in the agent's order, later ones winning: the
// main file, then every file of the drop-in folders, hidden ones and backups
// included. KEYLIME_AGENT_CONFIG names another file, and then nothing else is
// read.
func loadConfig() (settings, error) {
	files, err := configFiles()
	if err != nil {
		return settings{}, err
	}
	whole := struct {
		Agent settings `toml:"agent"`
	}{defaults}
	for _, file := range files {
		if _, err := toml.DecodeFile(file, &whole); err != nil {
			return settings{}, fmt.Errorf("read %s: %w", file, err)
		}
		log.Printf("read %s", file)
	}
	c := whole.Agent
	c.ServerKey = c.path(c.ServerKey, "server-private.pem")
	c.ServerCert = c.path(c.ServerCert, "server-cert.crt")
	c.TrustedClientCA = c.path(c.TrustedClientCA, "cv_ca/cacert.crt")
	return c, nil
}

func configFiles() ([]string, error) {
	if file := os.Getenv("KEYLIME_AGENT_CONFIG"); file != "" {
		return []string{file}, nil
	}
	var files []string
	for _, dir := range []string{"/usr/etc/keylime", "/etc/keylime"} {
		main := filepath.Join(dir, "agent.conf")
		if _, err := os.Stat(main); err == nil {
			files = append(files, main)
		}
	}
	for _, dir := range []string{"/usr/etc/keylime", "/etc/keylime"} {
		dropIns, err := dropInFiles(filepath.Join(dir, "agent.conf.d"))
		if err != nil {
			return nil, err
		}
		files = append(files, dropIns...)
	}
	return files, nil
}

func dropInFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if !entry.IsDir() {
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

// path is a file setting as the agent understands it: "default" is a name
// below keylime_dir, and so is everything that is not absolute.
func (c settings) path(value, standard string) string {
	if value == "default" || value == "" {
		value = standard
	}
	if filepath.IsAbs(value) {
		return value
	}
	return filepath.Join(c.KeylimeDir, value)
}
