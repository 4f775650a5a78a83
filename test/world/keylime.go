// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// AgentUUID is the agent of host auth, as its configuration template names it.
const AgentUUID = "d432fbb3-d2f1-4a97-9ef7-75bd81c00000"

// A Component is a part of Keylime with a main configuration file of its own.
type Component string

// The components.
const (
	Verifier  Component = "verifier"
	Registrar Component = "registrar"
	Tenant    Component = "tenant"
	Agent     Component = "agent"
)

// ConfigFile is the component's main file.
func (c Component) ConfigFile() string { return "/etc/keylime/" + string(c) + ".conf" }

// InstallKeylime lays down what Keylime's package would: the folders of the
// user keylime, and main files from Keylime's own templates, in which only the
// addresses are set. Nothing is started.
func (w *World) InstallKeylime(ctx context.Context, h *Host, components ...Component) error {
	for _, dir := range []struct{ mode, path string }{
		{"0700", "/var/lib/keylime"}, {"0700", "/run/keylime"}, {"0750", "/var/log/keylime"}, {"0500", "/etc/keylime"},
	} {
		if _, err := h.Must(ctx, "install", "-d", "-o", "keylime", "-g", "keylime", "-m", dir.mode, dir.path); err != nil {
			return err
		}
	}
	for _, c := range components {
		w.Watch(h, "/var/log/keylime/"+string(c)+".log")
	}
	for _, name := range append([]Component{"ca", "logging"}, components...) {
		if err := w.installMain(ctx, h, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) installMain(ctx context.Context, h *Host, name Component) error {
	text, err := w.Template(name)
	if err != nil {
		return err
	}
	for key, value := range addresses(h, name) {
		if text, err = setKey(text, key, value); err != nil {
			return fmt.Errorf("%s: %w", name.ConfigFile(), err)
		}
	}
	dropIns := name.ConfigFile() + ".d"
	if _, err := h.Must(ctx, "install", "-d", "-o", "keylime", "-g", "keylime", "-m", "0500", dropIns); err != nil {
		return err
	}
	user, err := h.User("keylime")
	if err != nil {
		return err
	}
	return h.WriteFileAs(name.ConfigFile(), []byte(text), 0o400, user.UID, user.GID)
}

// Template is the component's main file as Keylime's own tool makes it.
func (w *World) Template(name Component) (string, error) {
	text, err := os.ReadFile(filepath.Join(w.Tools.Venv, "share", "keylime", string(name)+".conf"))
	if err != nil {
		return "", fmt.Errorf("find Keylime's configuration: %w: run make setup", err)
	}
	return string(text), nil
}

// addresses are the settings that differ from host to host.
func addresses(h *Host, name Component) map[string]string {
	switch name {
	case Verifier:
		return map[string]string{"ip": h.IP, "registrar_ip": SpireIP}
	case Registrar:
		return map[string]string{"ip": h.IP}
	case Tenant:
		return map[string]string{"verifier_ip": SpireIP, "registrar_ip": SpireIP}
	case Agent:
		return map[string]string{"ip": quoted(h.IP), "contact_ip": quoted(h.IP), "registrar_ip": quoted(SpireIP)}
	default:
		return nil
	}
}

func quoted(s string) string { return `"` + s + `"` }

// setKey gives a key of a configuration file another value, in place.
func setKey(text, key, value string) (string, error) {
	line, err := keyLine(text, key)
	if err != nil {
		return "", err
	}
	return strings.Replace(text, line, key+" = "+value, 1), nil
}

// keyLine finds the one line that sets a key.
func keyLine(text, key string) (string, error) {
	lines := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(key)+`[ \t]*=.*$`).FindAllString(text, -1)
	if len(lines) != 1 {
		return "", fmt.Errorf("%d lines set %s, not one", len(lines), key)
	}
	return lines[0], nil
}

// KeylimeTenant runs Keylime's command-line client on the host.
func (h *Host) KeylimeTenant(ctx context.Context, args ...string) (Result, error) {
	return h.Must(ctx, "/usr/bin/keylime_tenant", args...)
}
