// SPDX-License-Identifier: Apache-2.0

//go:build long

package boot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/debian"
	"funlab.casa/omen/test/nspawn"
	"funlab.casa/omen/test/world"
)

// beforehand is how long the clock of a boot shows a time before the installed certificate
// was made.
const beforehand = 50 * time.Second

// TestEarlyClock boots a machine whose clock shows a time at which its certificate is not
// valid yet. A container has the machine's clock, so that it is the certificate that comes
// from the future. Nothing is asked of OpenBao meanwhile: what it issued would be of no use.
func TestEarlyClock(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 8*time.Minute)
	t.Cleanup(cancel)
	m := newMachine(ctx, t)
	m.certs[0].Key = "file"
	m.configure("")
	m.powerCycle()
	m.WantServed()
	m.Inside("omen-agent", "renew") // so that what was installed when is told by files, not by certificates
	m.WantServed()

	t.Log("services are held until the time has come")
	logins := m.logins()
	comes := m.bootEarly()
	m.Await(debian.AgentService, "waiting for the clock: it shows ")
	if line := m.Show(debian.AgentService, "StatusText"); !strings.HasPrefix(line, "waiting for the clock") {
		t.Errorf("systemctl status says %q", line)
	}
	if state := m.Show(debian.KeylimeAgent, "ActiveState"); state == "active" {
		t.Error("the service does not wait")
	}
	m.Await(debian.AgentService, "certificates are in place")
	m.Must(nspawn.Await(ctx, m.runs))
	if began := m.began(debian.KeylimeAgent); began.Before(comes) || began.After(comes.Add(15*time.Second)) {
		t.Errorf("the service started %s after the time had come", began.Sub(comes))
	}
	m.WantServed()
	m.WantStarts(1)
	if more := m.logins() - logins; more != 0 {
		t.Errorf("%d logins", more)
	}

	t.Log("services are held no longer than configured, and the agent goes on when the time has come")
	m.configure("[boot]\nhold = \"15s\"\n")
	comes = m.bootEarly()
	m.Await(debian.AgentService, "they waited for certificates as long as is configured")
	if left := time.Until(comes); left < 0 {
		t.Errorf("it took %s longer than the clock", -left)
	}
	m.Await(debian.AgentService, "; next renewal at ")
	if left := time.Until(comes); left > 0 {
		t.Errorf("the agent went on %s before the time had come", left)
	}
	early := m.WantServed()
	m.WantStarts(1)
	m.Inside("omen-agent", "renew")
	if m.WantServed().Equal(early) {
		t.Error("it does not renew")
	}
}

// bootEarly cuts the power, installs a certificate from the future, and begins to boot. It
// returns from when on the certificate is valid.
func (m *machine) bootEarly() time.Time {
	m.T.Helper()
	like := m.Installed()
	m.Must(m.container.Cut())
	m.Must(m.Story.Auth.TPM.Reboot())
	comes := time.Now().Add(beforehand).Truncate(time.Second)
	certificate, key := m.issuedFrom(comes, like)
	m.replace(certificate, key)
	m.Must(m.container.Begin())
	m.Must(nspawn.Await(m.Context, m.container.FindLeader))
	return comes
}

// issuedFrom has OpenBao issue another certificate like that. It makes the
// key too: pki/sign has no ear for not_before.
func (m *machine) issuedFrom(from time.Time, like *x509.Certificate) (certificate, key []byte) {
	m.T.Helper()
	var addresses []string
	for _, ip := range like.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	_, err := m.Story.World.Bao.Write(m.Context, "pki_int/roles/early", map[string]any{
		"allow_any_name": true, "server_flag": true, "client_flag": false, "key_type": "ec", "key_bits": 256,
		"key_usage": []string{"DigitalSignature"}, "not_before_bound": "permit",
	})
	m.Must(err)
	answer, err := m.Story.World.Bao.Write(m.Context, "pki_int/issue/early", map[string]any{
		"common_name": like.Subject.CommonName, "alt_names": strings.Join(like.DNSNames, ","), "ip_sans": strings.Join(addresses, ","),
		"not_before": from.UTC().Format(time.RFC3339), "ttl": "24h", "private_key_format": "pkcs8",
	})
	m.Must(err)
	certificate, key = []byte(answer.Data["certificate"].(string)+"\n"), []byte(answer.Data["private_key"].(string)+"\n")
	block, _ := pem.Decode(certificate)
	leaf, err := x509.ParseCertificate(block.Bytes)
	m.Must(err)
	if !leaf.NotBefore.Equal(from) {
		m.T.Fatalf("OpenBao signs from %s, not from %s", leaf.NotBefore, from)
	}
	return certificate, key
}

// replace puts another leaf and its key into the installed set, which looks as if it had
// been installed so.
func (m *machine) replace(leaf, key []byte) {
	m.T.Helper()
	sets := filepath.Join(m.container.Root(), "var/lib/omen-agent/keylime")
	current, err := os.Readlink(filepath.Join(sets, "current"))
	m.Must(err)
	chain, err := os.ReadFile(filepath.Join(sets, current, "agent.crt"))
	m.Must(err)
	_, others := pem.Decode(chain)
	list := filepath.Join(sets, current, ".omen-manifest")
	manifest, err := os.ReadFile(list)
	m.Must(err)
	for name, content := range map[string][]byte{"agent.crt": append(leaf, others...), "agent.key": key} {
		file := filepath.Join(sets, current, name)
		before, err := os.ReadFile(file)
		m.Must(err)
		if !bytes.Contains(manifest, hash(before)) {
			m.T.Fatalf("the manifest does not have %s:\n%s", name, manifest)
		}
		manifest = bytes.Replace(manifest, hash(before), hash(content), 1)
		m.Must(os.WriteFile(file, content, 0o600)) // owner and mode stay
	}
	m.Must(os.WriteFile(list, manifest, 0o600))
}

func hash(content []byte) []byte {
	sum := sha256.Sum256(content)
	return []byte(hex.EncodeToString(sum[:]))
}

// logins counts the logins in OpenBao's audit log.
func (m *machine) logins() int {
	m.T.Helper()
	text, err := m.Story.World.Bao.Host.ReadFile(world.BaoAudit)
	m.Must(err)
	return strings.Count(string(text), `"path":"auth/tpm/login"`)
}

// began is when a service started last.
func (m *machine) began(unit string) time.Time {
	m.T.Helper()
	text := m.Inside("systemctl", "show", "--timestamp=unix", "--value", "--property=ExecMainStartTimestamp", unit)
	seconds, err := strconv.ParseInt(strings.TrimPrefix(text, "@"), 10, 64)
	m.Must(err)
	return time.Unix(seconds, 0)
}

// runs returns an error while the service does not run.
func (m *machine) runs() error {
	if state := m.Show(debian.KeylimeAgent, "ActiveState"); state != "active" {
		return errors.New(debian.KeylimeAgent + " is " + state)
	}
	return nil
}
