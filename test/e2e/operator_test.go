// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/world"
)

// read is what OpenBao holds at a path, as the administrator sees it.
func (l *lab) read(ctx context.Context, t *testing.T, path string) map[string]any {
	t.Helper()
	admin := check(l.World.Bao.Admin(ctx))(t)
	secret := check(admin.Logical().ReadWithContext(ctx, path))(t)
	if secret == nil {
		t.Fatalf("OpenBao has nothing at %s", path)
	}
	return secret.Data
}

// write is a change by the administrator.
func (l *lab) write(ctx context.Context, t *testing.T, path string, data map[string]any) {
	t.Helper()
	check(l.World.Bao.Write(ctx, path, data))(t)
}

func (l *lab) remove(ctx context.Context, t *testing.T, path string) {
	t.Helper()
	admin := check(l.World.Bao.Admin(ctx))(t)
	check(admin.Logical().DeleteWithContext(ctx, path))(t)
}

func roleGone(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	m.lab.without(ctx, t, "pki_int/roles/"+m.Name+".server", func(ctx context.Context) {
		must(t, m.lab.World.Bao.AllowNames(ctx, m.names))
	})
}

// without takes something out of OpenBao until the test ends.
func (l *lab) without(ctx context.Context, t *testing.T, path string, putBack func(context.Context)) {
	t.Helper()
	t.Cleanup(func() { putBack(context.WithoutCancel(ctx)) })
	l.remove(ctx, t, path)
}

func notEnrolled(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	ids, _ := m.lab.read(ctx, t, "auth/tpm/host/"+m.Name)["tpm_ids"].([]any)
	m.lab.without(ctx, t, "auth/tpm/host/"+m.Name, func(ctx context.Context) { m.enrol(ctx, t) })
	for _, id := range ids { // the host's going is not to be held against its TPM
		m.lab.remove(ctx, t, fmt.Sprintf("auth/tpm/tombstone/%s", id))
	}
}

func policyGone(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	m.lab.without(ctx, t, "sys/policies/acl/omen-host-"+m.Name, func(ctx context.Context) {
		must(t, m.lab.World.Bao.AllowNames(ctx, m.names))
	})
}

func audienceGone(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	m.lab.audiences(ctx, t, "https://other.funlab.casa:8200||auth/tpm")
}

// audiences gives the auth method another list until the test ends.
func (l *lab) audiences(ctx context.Context, t *testing.T, list ...string) {
	t.Helper()
	old := l.read(ctx, t, "auth/tpm/config")["audiences"]
	t.Cleanup(func() {
		l.write(context.WithoutCancel(ctx), t, "auth/tpm/config", map[string]any{"audiences": old})
	})
	l.write(ctx, t, "auth/tpm/config", map[string]any{"audiences": list})
}

// expiredRoot has the host ask another PKI mount, whose root ended an hour ago
// and which signs all the same; that root is also the one the host pins.
func expiredRoot(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	certificate, key := newRoot(t, "Book of Yesterday", time.Now().Add(-time.Hour))
	m.lab.write(ctx, t, "sys/mounts/pki_old", map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}})
	m.lab.without(ctx, t, "sys/policies/acl/omen-host-"+m.Name, func(ctx context.Context) {
		m.lab.remove(ctx, t, "sys/mounts/pki_old")
		must(t, m.lab.World.Bao.AllowNames(ctx, m.names))
	})
	m.lab.write(ctx, t, "pki_old/config/ca", map[string]any{"pem_bundle": string(certificate) + string(key)})
	m.lab.write(ctx, t, "pki_old/issuer/default", map[string]any{"leaf_not_after_behavior": "permit"})
	role := m.Name + ".server"
	m.lab.write(ctx, t, "pki_old/roles/"+role, m.lab.read(ctx, t, "pki_int/roles/"+role))
	m.lab.write(ctx, t, "sys/policies/acl/omen-host-"+m.Name, map[string]any{
		"policy": `path "pki_old/sign/` + role + `" { capabilities = ["update"] }`,
	})
	m.replaceFile(t, world.AnchorFile, certificate)
	m.changeConfig(t, `"pki_int"`, `"pki_old"`)
}

func anotherAnchor(_ context.Context, t *testing.T, m *machine) {
	t.Helper()
	certificate, _ := newRoot(t, "Book of Others", time.Now().Add(time.Hour))
	m.replaceFile(t, world.AnchorFile, certificate)
}

func unknownCA(_ context.Context, t *testing.T, m *machine) {
	t.Helper()
	certificate, _ := newRoot(t, "Other server CA", time.Now().Add(time.Hour))
	m.replaceFile(t, world.BaoCAFile, certificate)
}

// anotherName has the host dial OpenBao by a name that is not in its certificate.
func anotherName(_ context.Context, t *testing.T, m *machine) {
	t.Helper()
	hosts := check(m.ReadFile("/etc/hosts"))(t)
	m.replaceFile(t, "/etc/hosts", append(hosts, world.SpireIP+" other.funlab.casa\n"...))
	m.changeConfig(t, "https://spire.", "https://other.")
}

func lateDropIn(_ context.Context, t *testing.T, m *machine) {
	t.Helper()
	m.replaceFile(t, "/etc/keylime/verifier.conf.d/90-site.conf", []byte("[verifier]\nserver_cert = site.crt\n"))
}

func busyTPM(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	hold(ctx, t, m.Host, m.TPM.Socket()+".lock")
}

func secondAgent(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	hold(ctx, t, m.Host, "/var/lib/omen-agent/install.lock")
}

// newRoot makes a self-signed CA that is valid until then; both PEM.
func newRoot(t *testing.T, name string, until time.Time) (certificate, key []byte) {
	t.Helper()
	private := check(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name},
		NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der := check(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))(t)
	raw := check(x509.MarshalPKCS8PrivateKey(private))(t)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// hold has another program hold a lock until the test ends.
func hold(ctx context.Context, t *testing.T, h *world.Host, path string) {
	t.Helper()
	holder := check(h.Start("/var/log/holder.log", "flock", path, "sleep", "1000"))(t)
	t.Cleanup(func() { must(t, holder.Stop(5*time.Second)) })
	must(t, holder.Await(ctx, func(ctx context.Context) error {
		result, err := h.Run(ctx, "flock", "--nonblock", path, "true")
		if err == nil && result.Code == 0 {
			err = errors.New("the lock is free still")
		}
		return err
	}))
}

// diskFull moves the agent's folder to a file system of its own and fills it.
func diskFull(ctx context.Context, t *testing.T, m *machine) {
	t.Helper()
	shell(`mkdir -p /run/small
mount -t tmpfs -o size=256k,mode=0711 small /run/small
cp -a /var/lib/omen-agent/. /run/small/
mount --move /run/small /var/lib/omen-agent
head -c 1M /dev/zero > /var/lib/omen-agent/filler || true`, `umount /var/lib/omen-agent && rmdir /run/small`)(ctx, t, m)
}

// noUser takes the user keylime out of the host's user database.
func noUser(_ context.Context, t *testing.T, m *machine) {
	t.Helper()
	var left []string
	for l := range strings.Lines(string(check(m.ReadFile("/etc/passwd"))(t))) {
		if !strings.HasPrefix(l, "keylime:") {
			left = append(left, l)
		}
	}
	m.replaceFile(t, "/etc/passwd", []byte(strings.Join(left, "")))
}
