// SPDX-License-Identifier: Apache-2.0

//go:build long

package boot_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/nspawn"
	"funlab.casa/omen/test/story"
	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) {
	nspawn.Become()
	code, done := world.Enter()
	if !done {
		code = m.Run()
	}
	os.Exit(code)
}

const (
	agentService  = "omen-agent.service"
	unsealService = "omen-agent-unseal.service"
	keylimeAgent  = "keylime_agent.service"
	tpmFolder     = "/opt/tpm" // of the software TPM's socket, inside
)

// A machine is the host auth of the story, which boots: Debian, systemd, the package of
// omen-agent, Keylime's own unit for its agent, and a TPM that keeps its state.
type machine struct {
	*nspawn.Container
	t     *testing.T
	ctx   context.Context
	story *story.Story
	certs []world.Certificate
}

// newMachine tells the story until OpenBao knows the machine and Keylime runs on spire,
// and installs the machine. It does not run yet.
func newMachine(ctx context.Context, t *testing.T) *machine {
	t.Helper()
	runtime.LockOSThread() // the container ends with this thread
	s := &story.Story{}
	m := &machine{t: t, ctx: ctx, story: s, certs: world.AuthCertificates()}
	t.Cleanup(func() {
		if t.Failed() && s.World != nil {
			t.Log(m.inside("journalctl", "--no-pager", "-b", "-o", "short-monotonic", "-u", agentService, "-u", unsealService, "-u", keylimeAgent))
			t.Log(s.World.Logs(20))
		}
		if m.Container != nil {
			m.must(m.Remove())
		}
		m.must(s.Close())
	})
	for _, step := range story.Steps()[:5] {
		if _, err := step.Run(ctx, s); err != nil {
			t.Fatalf("%s: %v", step.Name, err)
		}
	}
	m.install()
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// install lays a root with everything that packages bring, and what an operator writes.
func (m *machine) install() {
	m.t.Helper()
	tools, auth := m.story.World.Tools, m.story.Auth
	standin, err := tools.Program("standin")
	m.must(err)
	m.Container = &nspawn.Container{
		Network: true, Binds: []string{standin + ":/usr/bin/keylime_agent"},
		Writable: []string{filepath.Dir(auth.TPM.Socket()) + ":" + tpmFolder},
	}
	m.must(m.Unpack(m.ctx, tools.Module))
	for name, source := range map[string]string{
		"/usr/lib/sysusers.d/keylime.conf":                     "keylime-sysusers.conf",
		"/usr/lib/tmpfiles.d/keylime.conf":                     "keylime-tmpfiles.conf",
		"/usr/lib/systemd/system/" + keylimeAgent:              "keylime_agent.service",
		"/usr/lib/systemd/system/var-lib-keylime-secure.mount": "var-lib-keylime-secure.mount",
	} {
		text, err := os.ReadFile(filepath.Join(tools.Module, "test/systemd/testdata", source))
		m.must(err)
		m.write(name, string(text))
	}
	for _, name := range []string{"/etc/hosts", "/etc/keylime/agent.conf", world.BaoCAFile, world.AnchorFile, world.ClientsAnchorFile} {
		text, err := auth.ReadFile(name)
		m.must(err)
		m.write(name, string(text))
	}
	m.certs[0].Service = nil // systemd knows
	m.configure("")
	m.installPackage(tools)
	m.chroot("systemctl", "enable", keylimeAgent)
}

func (m *machine) installPackage(tools world.Tools) {
	m.t.Helper()
	found, err := filepath.Glob(filepath.Join(tools.Module, "dist/out", "omen-agent_*_"+runtime.GOARCH+".deb"))
	if err != nil || len(found) != 1 {
		m.t.Fatalf("packages %v, %v: run make packages", found, err)
	}
	text, err := os.ReadFile(found[0])
	m.must(err)
	m.write("/root/omen-agent.deb", string(text))
	m.chroot("dpkg", "--install", "/root/omen-agent.deb")
}

// configure writes agent.toml, with more lines at its beginning.
func (m *machine) configure(more string) {
	m.t.Helper()
	text := m.story.Auth.AgentTOML(m.certs)
	text = strings.ReplaceAll(text, m.story.Auth.TPM.Device(), "unix:"+tpmFolder+"/"+filepath.Base(m.story.Auth.TPM.Socket()))
	m.write(world.AgentConfig, more+text)
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	path := filepath.Join(m.Root(), name)
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	m.must(os.WriteFile(path, []byte(text), 0o644))
}

// chroot runs a command in the root while nothing runs there. It gets the devices of
// here: the files of a world are on a file system without.
func (m *machine) chroot(arguments ...string) {
	m.t.Helper()
	const script = `mount --rbind /dev "$1/dev" && exec chroot "$@"`
	command := exec.CommandContext(m.ctx, "unshare", append([]string{"--mount", "sh", "-c", script, "sh", m.Root()}, arguments...)...)
	command.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	if output, err := command.CombinedOutput(); err != nil {
		m.t.Fatalf("%v: %v\n%s", arguments, err, output)
	}
}

// powerCycle cuts the power and gives it back, to the TPM too; it returns when the boot
// is done.
func (m *machine) powerCycle() {
	m.t.Helper()
	m.must(m.Cut())
	m.must(m.story.Auth.TPM.Reboot())
	m.must(m.Boot(m.ctx))
}

// inside is what a command says inside.
func (m *machine) inside(arguments ...string) string {
	m.t.Helper()
	output, err := m.Enter(m.ctx, arguments...).CombinedOutput()
	if err != nil {
		m.t.Logf("%v: %v", arguments, err)
	}
	return strings.TrimSpace(string(output))
}

func (m *machine) show(unit, property string) string {
	m.t.Helper()
	return m.inside("systemctl", "show", "--value", "--property="+property, unit)
}

// expect wants units in these states.
func (m *machine) expect(states map[string]string) {
	m.t.Helper()
	for unit, want := range states {
		if got := m.show(unit, "ActiveState") + " " + m.show(unit, "Result"); got != want {
			m.t.Errorf("%s is %s, not %s", unit, got, want)
		}
	}
}

// held is for how long the service was held back by the agent.
func (m *machine) held() time.Duration {
	m.t.Helper()
	moment := func(unit, property string) int64 {
		number, err := strconv.ParseInt(m.show(unit, property), 10, 64)
		m.must(err)
		return number
	}
	return time.Duration(moment(keylimeAgent, "ExecMainStartTimestampMonotonic")-moment(agentService, "ExecMainStartTimestampMonotonic")) * time.Microsecond
}

// starts counts how often the service began to listen in this boot.
func (m *machine) starts() int {
	m.t.Helper()
	return strings.Count(m.inside("journalctl", "--no-pager", "-b", "-o", "cat", "-u", keylimeAgent), "Listening on")
}

// installed is the leaf on the disk.
func (m *machine) installed() *x509.Certificate {
	m.t.Helper()
	sets := filepath.Join(m.Root(), "var/lib/omen-agent/keylime")
	current, err := os.Readlink(filepath.Join(sets, "current"))
	m.must(err)
	text, err := os.ReadFile(filepath.Join(sets, current, "agent.crt"))
	m.must(err)
	block, _ := pem.Decode(text)
	if block == nil {
		m.t.Fatal("no certificate is installed")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	m.must(err)
	return leaf
}

// wantServed wants the installed certificate on the wire, and returns it.
func (m *machine) wantServed() *x509.Certificate {
	m.t.Helper()
	leaf := m.installed()
	ctx, cancel := context.WithTimeout(m.ctx, 30*time.Second)
	defer cancel()
	m.must(nspawn.Await(ctx, func() error {
		served, err := m.story.World.Served(ctx, m.story.Auth.IP+":9002")
		if err == nil && !served.Equal(leaf) {
			err = fmt.Errorf("serves %x, installed is %x", served.SerialNumber, leaf.SerialNumber)
		}
		return err
	}))
	return leaf
}

// await waits until the journal of a unit, of this boot, holds a text.
func (m *machine) await(unit, text string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.ctx, 2*time.Minute)
	defer cancel()
	m.must(nspawn.Await(ctx, func() error {
		if strings.Contains(m.inside("journalctl", "--no-pager", "-b", "-o", "cat", "-u", unit), text) {
			return nil
		}
		return errors.New("the journal of " + unit + " has no " + text)
	}))
}
