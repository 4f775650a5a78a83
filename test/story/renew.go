// SPDX-License-Identifier: Apache-2.0

package story

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"funlab.casa/omen/test/world"
)

// An Endpoint is a port of Keylime and the certificate that belongs there.
type Endpoint struct {
	Host    *world.Host
	Name    string // of the certificate in /etc/keylime/certs
	Address string
}

// Endpoints are the three ports with TLS.
func (s *Story) Endpoints() []Endpoint {
	return []Endpoint{
		{s.Spire, "verifier", world.SpireIP + ":8881"},
		{s.Spire, "registrar", world.SpireIP + ":8891"},
		{s.Auth, "agent", world.AuthIP + ":9002"},
	}
}

// Renew runs omen-agent renew on a host and wants this exit code.
func Renew(ctx context.Context, h *world.Host, wanted int) (world.Result, error) {
	result, err := h.Run(ctx, "/usr/bin/omen-agent", "--config", world.AgentConfig, "renew")
	if err == nil && result.Code != wanted {
		err = result.Unexpected(h, wanted)
	}
	return result, err
}

// RenewSpire gets spire's four certificates.
func RenewSpire(ctx context.Context, s *Story) (string, error) {
	if _, err := Renew(ctx, s.Spire, 0); err != nil {
		return "", err
	}
	for _, name := range []string{"verifier", "verifier-client", "registrar", "tenant"} {
		if err := checkFiles(s.Spire, name, "keylime"); err != nil {
			return "", err
		}
	}
	for _, e := range s.Endpoints()[:2] {
		if err := s.checkServed(ctx, e); err != nil {
			return "", err
		}
		if err := checkUser(ctx, e, "keylime"); err != nil {
			return "", err
		}
	}
	return "four certificates; 8881 and 8891 serve theirs, as user keylime", nil
}

// RenewAuth gets auth's one certificate.
func RenewAuth(ctx context.Context, s *Story) (string, error) {
	if _, err := Renew(ctx, s.Auth, 0); err != nil {
		return "", err
	}
	agent := s.Endpoints()[2]
	err := errors.Join(checkFiles(s.Auth, "agent", "keylime"), s.checkServed(ctx, agent), checkUser(ctx, agent, "keylime"))
	if err != nil {
		return "", err
	}
	return "9002 serves it, as user keylime; Debian 12 has no package of the Rust agent: a stand-in reads its files as it would", nil
}

// RenewAgain renews on both hosts and wants another certificate everywhere.
func RenewAgain(ctx context.Context, s *Story) (string, error) {
	var old [][]byte
	for _, e := range s.Endpoints() {
		leaf, err := e.Host.Installed(e.Name)
		if err != nil {
			return "", err
		}
		old = append(old, leaf.SerialNumber.Bytes())
	}
	for _, h := range []*world.Host{s.Spire, s.Auth} {
		if _, err := Renew(ctx, h, 0); err != nil {
			return "", err
		}
	}
	var told []string
	for i, e := range s.Endpoints() {
		if err := s.checkServed(ctx, e); err != nil {
			return "", err
		}
		leaf, err := e.Host.Installed(e.Name)
		if err != nil {
			return "", err
		}
		serial := leaf.SerialNumber.Bytes()
		if bytes.Equal(serial, old[i]) {
			return "", fmt.Errorf("%s has the old certificate still (%x)", e.Name, serial)
		}
		told = append(told, fmt.Sprintf("%s %.4x→%.4x", e.Name, old[i], serial))
	}
	return "serials " + strings.Join(told, ", "), nil
}

// checkServed wants the installed leaf on the wire.
func (s *Story) checkServed(ctx context.Context, e Endpoint) error {
	installed, err := e.Host.Installed(e.Name)
	if err != nil {
		return err
	}
	served, err := s.World.Served(ctx, e.Address)
	if err != nil {
		return err
	}
	if !served.Equal(installed) {
		return fmt.Errorf("%s serves %x, but %x is installed", e.Address, served.SerialNumber, installed.SerialNumber)
	}
	return nil
}

// checkFiles wants a certificate that everybody may read and a key that only
// its service can.
func checkFiles(h *world.Host, name, owner string) error {
	user, err := h.User(owner)
	if err != nil {
		return err
	}
	key, err := h.Stat(world.CertsDir + "/" + name + ".key")
	if err != nil {
		return err
	}
	uid := int(key.Sys().(*syscall.Stat_t).Uid)
	if key.Mode().Perm() != 0o600 || uid != user.UID {
		return fmt.Errorf("%s:%s.key has mode %v and owner %d, not 0600 and %s", h.Name, name, key.Mode(), uid, owner)
	}
	certificate, err := h.Stat(world.CertsDir + "/" + name + ".crt")
	if err == nil && certificate.Mode().Perm() != 0o644 {
		err = fmt.Errorf("%s:%s.crt has mode %v, not 0644", h.Name, name, certificate.Mode())
	}
	return err
}

// checkUser wants the service to run as its own user.
func checkUser(ctx context.Context, e Endpoint, owner string) error {
	pid, err := e.Host.ReadFile("/run/omen-agent/" + e.Name + ".pid")
	if err != nil {
		return err
	}
	result, err := e.Host.Must(ctx, "stat", "-c", "%U", "/proc/"+strings.TrimSpace(string(pid)))
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(result.Stdout); got != owner {
		return fmt.Errorf("%s runs as %s, not as %s", e.Name, got, owner)
	}
	return nil
}
