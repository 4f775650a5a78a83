// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/ecdsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"funlab.casa/omen/install"
)

const (
	clientAuth = x509.ExtKeyUsageClientAuth
	serverAuth = x509.ExtKeyUsageServerAuth
)

// current is the tenant's set in use.
const current = "var/lib/omen-agent/keylime/current/"

// install installs a set of one certificate of Keylime's, and gives its key.
func (h *machine) install(name string, change ...func(*install.Item)) *ecdsa.PrivateKey {
	h.t.Helper()
	key := newKey(h.t)
	item := install.Item{
		Name: name, Profile: "keylime-" + name, Key: install.KeyPEM(keyPEM(h.t, key)), CA: h.ca.pem,
		Chain: []byte(h.ca.leaf(key, name+".keylime.test", clientAuth, nil)),
	}
	for _, bend := range change {
		bend(&item)
	}
	must(h.t, h.installer().deploy(h.t, item))
	return key
}

type installer struct{ install.Installer }

func (h *machine) installer() *installer {
	return &installer{install.Installer{Root: h.root, Outage: 10 * time.Second}}
}

func (i *installer) deploy(t *testing.T, item install.Item) error {
	t.Helper()
	done, err := i.Install(t.Context(), []install.Item{item})
	if err != nil {
		return err
	}
	err = done.Reload(t.Context())
	if err == nil {
		err = done.Probe(t.Context())
	}
	if err == nil {
		err = done.Close()
	}
	return err
}

// ofTenant is a check of an installed tenant's certificate that bend breaks.
func ofTenant(check, words string, bend func(*machine, *ecdsa.PrivateKey)) func(*testing.T) {
	return func(t *testing.T) {
		h := bareHost(t)
		key := h.install("tenant")
		h.good(check)
		bend(h, key)
		h.bad(check, Problem, words)
	}
}

// replaces puts another certificate over the same key in place.
func replaces(usage x509.ExtKeyUsage, name string, change func(*x509.Certificate)) func(*machine, *ecdsa.PrivateKey) {
	return func(h *machine, key *ecdsa.PrivateKey) {
		h.place(current+"tenant.crt", h.ca.leaf(key, name, usage, change), 0o644)
	}
}

var certificateBreaks = map[string]func(*testing.T){
	"certificates-installed": func(t *testing.T) {
		h := bareHost(t)
		h.bad("certificates-installed", Problem, "nothing of this set is installed")
		h.install("tenant")
		h.good("certificates-installed")
		must(t, os.Remove(h.path(current+"tenant.crt")))
		h.bad("certificates-installed", Problem, "without tenant")
	},
	"certificate-validity": func(t *testing.T) {
		ofTenant("certificate-validity", "expired", replaces(clientAuth, "tenant.keylime.test", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}))(t)
		h := bareHost(t)
		key := h.install("tenant")
		replaces(clientAuth, "tenant.keylime.test", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-10 * time.Hour) })(h, key)
		h.bad("certificate-validity", Warning, "overdue")
		replaces(clientAuth, "tenant.keylime.test", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })(h, key)
		h.bad("certificate-validity", Problem, "begins")
	},
	"certificate-chain": ofTenant("certificate-chain", "does not reach the root", func(h *machine, key *ecdsa.PrivateKey) {
		h.place(current+"tenant.crt", newCA(h.t).leaf(key, "tenant.keylime.test", clientAuth, nil), 0o644)
	}),
	"certificate-pair": ofTenant("certificate-pair", "does not belong", func(h *machine, _ *ecdsa.PrivateKey) {
		h.place(current+"tenant.key", keyPEM(h.t, newKey(h.t)), 0o600)
	}),
	"certificate-usage": ofTenant("certificate-usage", "not exactly the one", replaces(clientAuth, "tenant.keylime.test", func(c *x509.Certificate) {
		c.ExtKeyUsage = append(c.ExtKeyUsage, serverAuth)
	})),
	"certificate-names": func(t *testing.T) {
		ofTenant("certificate-names", `agent.toml says "tenant.keylime.test"`, replaces(clientAuth, "other.keylime.test", nil))(t)
		for words, line := range map[string]string{
			"it lacks the DNS name new.keylime.test": `dns = ["new.keylime.test"]`,
			"it lacks the address 192.0.2.7":         `ip = ["127.0.0.1", "192.0.2.7"]`,
			"it lacks the URI spiffe://keylime.test": `uri = "spiffe://keylime.test/tenant"`,
		} {
			ofTenant("certificate-names", words, func(h *machine, _ *ecdsa.PrivateKey) { h.certs["tenant"] += "\n" + line })(t)
		}
	},
	"certificate-owner": ofTenant("certificate-owner", "tenant.key: mode or owner changed", func(h *machine, _ *ecdsa.PrivateKey) {
		must(h.t, os.Chmod(h.path(current+"tenant.key"), 0o644))
	}),
	"certificate-files": ofTenant("certificate-files", "ca.crt: changed", func(h *machine, _ *ecdsa.PrivateKey) {
		h.place(current+"ca.crt", "changed", 0o644)
	}),
	"certificate-keys": func(t *testing.T) {
		h := bareHost(t)
		h.install("tenant", func(i *install.Item) { i.Sealed = []byte("what the TPM opens") })
		h.good("certificate-keys")
		must(t, os.RemoveAll(h.path("run/omen-agent")))
		h.bad("certificate-keys", Problem, "not where its service reads it")
	},
	"last-renewal": func(t *testing.T) {
		h := bareHost(t)
		h.install("tenant")
		status := "var/lib/omen-agent/state/status.json"
		h.place(status, `{"last_success": "2026-11-24T12:00:00Z"}`, 0o600)
		h.good("last-renewal")
		h.place(status, `{"last_attempt": "2026-11-24T13:00:00Z", "failure": {"step": "login", "message": "refused: boot-policy"}}`, 0o600)
		h.bad("last-renewal", Problem, "boot-policy")
		h.place(filepath.Dir(filepath.Clean(current))+"/journal", "{}", 0o600)
		h.bad("last-renewal", Problem, "nobody has seen this set served")
	},
}
