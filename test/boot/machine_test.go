// SPDX-License-Identifier: Apache-2.0

//go:build long

package boot_test

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"funlab.casa/omen/test/debian"
	"funlab.casa/omen/test/nspawn"
	"funlab.casa/omen/test/world"
)

func TestMain(m *testing.M) {
	nspawn.Become()
	world.Main(m.Run)
}

const tpmFolder = "/opt/tpm" // of the software TPM's socket, inside

// A machine is the host auth of the story, which boots: Debian, systemd, the package of
// omen-agent, Keylime's own unit for its agent, and a TPM that keeps its state.
type machine struct {
	*debian.Host
	container *nspawn.Container
	certs     []world.Certificate
}

// newMachine tells the story until OpenBao knows the machine and Keylime runs on spire,
// and installs the machine. It does not run yet.
func newMachine(ctx context.Context, t *testing.T) *machine {
	t.Helper()
	runtime.LockOSThread() // the container ends with this thread
	m := &machine{certs: world.AuthCertificates()}
	m.Host = debian.NewHost(ctx, t, world.AuthIP+":9002", 2*time.Minute, func() error {
		if m.container == nil {
			return nil
		}
		return m.container.Remove()
	})
	m.install()
	return m
}

// install lays a root with everything that packages bring, and what an operator writes.
func (m *machine) install() {
	m.T.Helper()
	tools, auth := m.Story.World.Tools, m.Story.Auth
	standin, err := tools.Program("standin")
	m.Must(err)
	m.container = &nspawn.Container{
		Network: true, Binds: []string{standin + ":/usr/bin/keylime_agent"},
		Writable: []string{filepath.Dir(auth.TPM.Socket()) + ":" + tpmFolder},
	}
	m.Machine = m.container
	m.Must(m.container.Unpack(m.Context, tools.Module))
	m.certs[0].Service = nil // systemd knows
	m.configure("")
	m.Must(m.root().Lay(m.Context, tools, auth))
}

func (m *machine) root() debian.Root { return debian.Root(m.container.Root()) }

// configure writes agent.toml, with more lines at its beginning.
func (m *machine) configure(more string) {
	m.T.Helper()
	text := m.Story.Auth.AgentTOML(m.certs)
	text = strings.ReplaceAll(text, m.Story.Auth.TPM.Device(), "unix:"+tpmFolder+"/"+filepath.Base(m.Story.Auth.TPM.Socket()))
	m.Must(m.root().Write(world.AgentConfig, more+text))
}

// powerCycle cuts the power and gives it back, to the TPM too; it returns when the boot
// is done.
func (m *machine) powerCycle() {
	m.T.Helper()
	m.Must(m.container.Cut())
	m.Must(m.Story.Auth.TPM.Reboot())
	m.Must(m.container.Boot(m.Context))
}
