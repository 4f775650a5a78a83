// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"funlab.casa/omen/test/svid"
	"funlab.casa/omen/test/world"
)

const (
	meshID      = "spiffe://funlab.casa/mesh"
	meshSocket  = "/run/omen-agent/workload.sock"
	meshProgram = "/usr/bin/workload"
)

// meshTables is a certificate with a SPIFFE ID, its key sealed, and who gets it.
const meshTables = `
[[certificate]]
name        = "mesh"
profile     = "general"
usage       = "server"
common_name = "mesh.keylime.funlab.casa"
uri         = "spiffe://funlab.casa/mesh"
[certificate.files]
folder = "/etc/mesh/omen"

[workload_api]
certificate = "mesh"
users       = ["keylime"]
`

// workload is a program on the host, as a user of it.
func (m *machine) workload(ctx context.Context, user, play string) *exec.Cmd {
	cmd := m.Command(ctx, "setpriv", "--reuid", user, "--regid", user, "--init-groups", "--no-new-privs", meshProgram)
	cmd.Env = append(cmd.Env, svid.PlayVariable+"="+play, "SPIFFE_ENDPOINT_SOCKET=unix://"+meshSocket)
	return cmd
}

// wantSVID wants the next line of a workload to be of the installed certificate.
func (m *machine) wantSVID(t *testing.T, lines *bufio.Scanner) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the workload ended: %v", lines.Err())
	}
	block, _ := pem.Decode(check(m.ReadFile("/etc/mesh/omen/mesh.crt"))(t))
	leaf := check(x509.ParseCertificate(block.Bytes))(t)
	serial := fmt.Sprintf("%x", leaf.SerialNumber.Bytes())
	if want := fmt.Sprintf("svid %s %s talked to %s", meshID, serial, serial); lines.Text() != want {
		t.Errorf("%q, not %q", lines.Text(), want)
	}
}

// TestWorkloadAPI: an unmodified go-spiffe of a listed user gets the installed
// certificate and its bundle, talks with them, and has the next one after a renewal.
func TestWorkloadAPI(t *testing.T) {
	ctx, l := shared(t)
	m := l.add(ctx, t, "mesh", world.Tenant)
	role := l.read(ctx, t, "pki_int/roles/mesh.server")
	role["allowed_uri_sans"] = []string{meshID}
	l.write(ctx, t, "pki_int/roles/mesh.server", role)
	must(t, m.WriteFile(meshProgram, check(os.ReadFile("/proc/self/exe"))(t), 0o755))
	must(t, m.WriteFile(world.AgentConfig, []byte(m.AgentTOML(m.certificates)+meshTables), 0o644))
	check(m.Must(ctx, "install", "-d", "/etc/mesh"))(t)

	d := startRun(ctx, t, m.Host)
	awaitLog(ctx, t, m.Host, "msg=renewed host=mesh")
	awaitLog(ctx, t, m.Host, `msg="workload API served"`)
	watching := m.workload(ctx, "keylime", svid.Watch)
	out := check(watching.StdoutPipe())(t)
	watching.Stderr = os.Stderr
	must(t, watching.Start())
	lines := bufio.NewScanner(out)
	m.wantSVID(t, lines)
	if r := agent(ctx, t, m.Host, "renew", "--certificate", "mesh"); r.Code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	m.wantSVID(t, lines)

	m.asks(ctx, t, "openbao", svid.Fetch, "code PermissionDenied\n")
	m.asks(ctx, t, "root", svid.Fetch, "code PermissionDenied\n")
	m.asks(ctx, t, "keylime", svid.Bare, "code InvalidArgument\n")
	m.asks(ctx, t, "keylime", svid.Bundles, "bundle funlab.casa Book of Omens Root CA\ncode OK\n")
	if code := d.terminate(ctx, t); code != 0 {
		t.Errorf("after TERM the exit code is %d", code)
	}
	if m.Exists(meshSocket) {
		t.Error("the socket is left")
	}
	if log := string(check(m.ReadFile(runLog))(t)); strings.Contains(log, "PRIVATE KEY") || !strings.Contains(log, "is not listed") {
		t.Errorf("log:\n%s", log)
	}
	must(t, watching.Cancel())
	_ = watching.Wait() // it was killed
}

// asks runs a workload to its end and wants what it prints.
func (m *machine) asks(ctx context.Context, t *testing.T, user, play, want string) {
	t.Helper()
	out, err := m.workload(ctx, user, play).Output()
	if string(out) != want {
		t.Errorf("%s as %s: %q (%v), not %q", play, user, out, err, want)
	}
}
