// SPDX-License-Identifier: Apache-2.0

package attestation_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// agentVariable names a Rust agent to test with, instead of the Python agent.
const agentVariable = "KEYLIME_AGENT"

const agentFolder = "/usr/local/lib/keylime"

// installAgent puts a real agent in the stand-in's place. Either reads the
// drop-ins, and finds the TPM through a variable of its own.
func (l *lab) installAgent(ctx context.Context, t *testing.T) {
	t.Helper()
	command, tpm := "", "swtpm:path="+l.device.Socket()
	if rust := os.Getenv(agentVariable); rust != "" {
		command, tpm = l.rustAgent(ctx, t, rust), l.overTCP(t)
	} else {
		command = l.pythonAgent(ctx, t)
	}
	// A raw swtpm has no resource manager: what an agent that was ended left in it
	// would stay.
	script := fmt.Sprintf("#!/bin/sh\nexport TCTI=%[1]s TPM2TOOLS_TCTI=%[1]s\n"+
		"for kind in -t -l -s; do tpm2_flushcontext $kind; done\nexec %[2]s\n", tpm, command)
	must(t, l.Auth.WriteFile("/usr/bin/keylime_agent", []byte(script), 0o755))
}

// pythonAgent installs agent.py and returns the command that runs it.
func (l *lab) pythonAgent(ctx context.Context, t *testing.T) string {
	t.Helper()
	text := check(os.ReadFile("agent.py"))(t)
	check(l.Auth.Must(ctx, "mkdir", "-p", agentFolder))(t)
	must(t, l.Auth.WriteFile(agentFolder+"/keylime_agent", text, 0o644))
	l.tellAgent(t, `tpm_ownerpassword = "keylime"`) // it takes ownership of the TPM
	venv := l.World.Tools.Venv
	return fmt.Sprintf("env KEYLIME_TEST=on KEYLIME_DIR=/var/lib/keylime PYTHONPATH=%s %s %s/keylime_agent",
		filepath.Join(venv, "share", "keylime-agent"), filepath.Join(venv, "bin", "python"), agentFolder)
}

func (l *lab) rustAgent(ctx context.Context, t *testing.T, program string) string {
	t.Helper()
	check(l.Auth.Must(ctx, "install", "-D", "-m", "0755", program, agentFolder+"/keylime_agent"))(t)
	l.tellAgent(t, `revocation_actions_dir = "/var/lib/keylime"`) // its package would make another
	return "env RUST_LOG=info " + agentFolder + "/keylime_agent"
}

// tellAgent adds a line to the agent's configuration; revocations come from nowhere
// here.
func (l *lab) tellAgent(t *testing.T, line string) {
	t.Helper()
	user := check(l.Auth.User("keylime"))(t)
	drop := "[agent]\nenable_revocation_notifications = false\n" + line + "\n"
	must(t, l.Auth.WriteFileAs("/etc/keylime/agent.conf.d/10-test.conf", []byte(drop), 0o400, user.UID, user.GID))
}

// overTCP puts the TPM on two ports, for an agent that knows no sockets, and
// returns how it is called there.
func (l *lab) overTCP(t *testing.T) string {
	t.Helper()
	for port, socket := range map[string]string{"2321": l.device.Socket(), "2322": l.device.Socket() + ".ctrl"} {
		listener := check(net.Listen("tcp", "127.0.0.1:"+port))(t)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				from, err := listener.Accept()
				if err != nil {
					return
				}
				go forward(from, socket)
			}
		}()
	}
	return "swtpm:host=127.0.0.1,port=2321"
}

// forward carries bytes both ways until either side has enough.
func forward(from net.Conn, socket string) {
	defer func() { _ = from.Close() }()
	to, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	go func() {
		_, _ = io.Copy(to, from)
		_ = to.Close()
	}()
	_, _ = io.Copy(from, to)
}
