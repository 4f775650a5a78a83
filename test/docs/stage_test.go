// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/openbao/openbao/api/v2"

	"funlab.casa/omen/attest"
	"funlab.casa/omen/attest/attacker"
	"funlab.casa/omen/test/cluster"
)

const (
	mount         = "auth/tpm"
	pluginProgram = "openbao-plugin-auth-tpm"
	version       = "v0.1.0"
	nextVersion   = "v0.1.1"
)

var selection = attest.Selection{Bank: "sha256", PCRs: []int{0, 2, 4, 7}}

// stage is an OpenBao over TLS with the plugin, and a vendor of TPMs.
type stage struct {
	t      *testing.T
	node   *cluster.Node
	caFile string
	bao    string // the binary
	admin  *api.Client
	mount  *attacker.HTTP
	vendor *attacker.Vendor
}

func openStage(t *testing.T) *stage {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is not here: apt-get install curl")
	}
	bao, err := cluster.FindBao()
	check(t, err)
	c, err := cluster.Start(t.Context(), cluster.Config{
		Bao: bao, Nodes: 1, Multiplier: 1,
		Plugins: []cluster.Plugin{{Name: "tpm", Version: version, Binary: build(t, t.TempDir(), version)}},
	})
	check(t, err)
	t.Cleanup(func() {
		if text, err := os.ReadFile(c.Nodes[0].LogFile()); err == nil && t.Failed() {
			t.Logf("bao says at last:\n%s", text[max(0, len(text)-4000):])
		}
		check(t, c.Close())
	})
	s := &stage{t: t, node: c.Nodes[0], caFile: c.CAFile, bao: bao}
	s.admin, err = s.node.Admin()
	check(t, err)
	roots, err := os.ReadFile(c.CAFile)
	check(t, err)
	s.mount, err = attacker.NewHTTP(s.node.Address, "", mount, roots)
	check(t, err)
	s.vendor, err = attacker.NewVendor(attacker.P256)
	check(t, err)
	return s
}

// build makes the plugin's program in dir, under the name of its version.
func build(t *testing.T, dir, version string) string {
	t.Helper()
	program := filepath.Join(dir, pluginProgram+"-"+version)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -X funlab.casa/omen/plugin.Version="+version,
		"-o", program, "../../cmd/"+pluginProgram)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build plugin: %v\n%s", err, out)
	}
	return program
}

// plugins is the server's plugin directory.
func (s *stage) plugins() string { return filepath.Join(filepath.Dir(s.node.LogFile()), "plugins") }

// play is a new reader, who has what the pages take for granted.
func (s *stage) play(t *testing.T) *play {
	t.Helper()
	p := &play{stage: s, before: map[string]func(){}, shell: newShell(t, map[string]string{
		"PATH": filepath.Dir(s.bao) + ":" + os.Getenv("PATH"), "LANG": "C.UTF-8",
		"BAO_ADDR": s.node.Address, "BAO_CACERT": s.caFile, "BAO_TOKEN": s.admin.Token(),
		"VENDOR_ROOTS": s.vendor.PEM(),
	})}
	p.shell.write(t, "vendor-roots.pem", s.vendor.PEM())
	return p
}

func (s *stage) write(path string, data map[string]any) *api.Secret {
	s.t.Helper()
	secret, err := s.admin.Logical().WriteWithContext(s.t.Context(), path, data)
	check(s.t, err)
	return secret
}

func (s *stage) delete(path string) {
	s.t.Helper()
	_, err := s.admin.Logical().DeleteWithContext(s.t.Context(), path)
	check(s.t, err)
}

func (s *stage) read(path string) map[string]any {
	s.t.Helper()
	secret, err := s.admin.Logical().ReadWithContext(s.t.Context(), path)
	check(s.t, err)
	if secret == nil {
		s.t.Fatalf("nothing at %s", path)
	}
	return secret.Data
}

// clear deletes all records of one kind.
func (s *stage) clear(kind string) {
	s.t.Helper()
	secret, err := s.admin.Logical().ListWithContext(s.t.Context(), mount+"/"+kind)
	check(s.t, err)
	if secret == nil {
		return
	}
	for _, name := range secret.Data["keys"].([]any) {
		s.delete(mount + "/" + kind + "/" + fmt.Sprint(name))
	}
}

// remove deletes a host and lets its TPM be enrolled again.
func (s *stage) remove(hosts ...string) {
	s.t.Helper()
	for _, host := range hosts {
		s.delete(mount + "/host/" + host)
	}
	s.clear("tombstone")
}

// machine is a host with a TPM in software.
type machine struct {
	*attacker.TPM
	stage *stage
	id    string
}

// machine makes one that booted with Secure Boot on, and this boot loader.
func (s *stage) machine(loader string) *machine {
	s.t.Helper()
	tpm, err := attacker.NewTPM(s.vendor, attacker.P256)
	check(s.t, err)
	named, err := attacker.Named("id:49465800", "SLB9672", "id:00100A00")
	check(s.t, err)
	tpm.EKCertificate, err = s.vendor.Certify(tpm.EK.Public(), named)
	check(s.t, err)
	id, err := tpm.ID()
	check(s.t, err)
	m := &machine{TPM: tpm, stage: s, id: string(id)}
	m.boot(loader)
	return m
}

// boot boots anew.
func (m *machine) boot(loader string) {
	m.stage.t.Helper()
	fresh, err := attacker.NewTPMWithEK(m.stage.vendor, m.EK)
	check(m.stage.t, err)
	fresh.EKCertificate, fresh.AK, fresh.Counters = m.EKCertificate, m.AK, m.Counters
	fresh.Reset()
	check(m.stage.t, fresh.Measure(bootOf(loader)...))
	m.TPM = fresh
}

func (m *machine) digest() string {
	d := m.Digest(selection)
	return hex.EncodeToString(d[:])
}

func (s *stage) audience() string {
	audience, err := attest.Audience(s.node.Address, "", mount)
	check(s.t, err)
	return audience
}

// attest is one whole login.
func (m *machine) attest(role string, ticket attest.Ticket) *attacker.Answer {
	m.stage.t.Helper()
	answer, err := m.Attest(m.stage.t.Context(), m.stage.mount, attacker.Login{
		Role: role, Audience: m.stage.audience(), Ticket: ticket, WantedName: map[bool]string{true: "web2"}[role == "guests"],
	})
	check(m.stage.t, err)
	return answer
}

// in is a login that must succeed; metadata is what the token says.
func (m *machine) in(role string) (metadata map[string]string) {
	m.stage.t.Helper()
	return m.enter(role, nil)
}

func (m *machine) enter(role string, ticket attest.Ticket) map[string]string {
	m.stage.t.Helper()
	answer := m.attest(role, ticket)
	if !answer.In() {
		m.stage.t.Fatalf("%s does not get in: %d %q", m.id, answer.Status, answer.Errors)
	}
	var auth struct{ Metadata map[string]string }
	check(m.stage.t, json.Unmarshal(answer.Auth, &auth))
	return auth.Metadata
}

// out is a login that must be refused by a rule.
func (m *machine) out(role string, want attest.Rule) {
	m.stage.t.Helper()
	if answer := m.attest(role, nil); answer.Rule() != want {
		m.stage.t.Fatalf("%s: %d %q, want the rule %s", m.id, answer.Status, answer.Errors, want)
	}
}

func set(p *play, values map[string]string) { maps.Copy(p.shell.env, values) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
