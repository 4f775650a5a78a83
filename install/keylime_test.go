// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"funlab.casa/omen/install/internal/cell"
	"funlab.casa/omen/install/keylime"
	"funlab.casa/omen/test/testca"
)

// These tests have Keylime's own verifier, registrar and tenant as judges, on
// their real paths and ports, in a cell.

// venv is the Python environment that make setup prepares.
func venv(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	found, err := filepath.EvalSymlinks(filepath.Join(dir, ".cache/venv"))
	if err != nil {
		t.Fatalf("Keylime is missing: make setup (%v)", err)
	}
	return found
}

// newKeylimeHost is this machine with private layers over what is written, a
// user keylime, and Keylime's own main files.
func newKeylimeHost(t *testing.T) *host {
	t.Helper()
	python := venv(t)
	layers := scratch(t)
	cell.Cover(t, "/etc", layers+"/etc")
	cell.Cover(t, "/var/lib", layers+"/lib")
	cell.Cover(t, "/var/log", layers+"/log")
	cell.Mount(t, "tmpfs", "/run", "tmpfs", 0, "mode=0755")
	h := &host{t: t, root: "/", ca: testca.New(t, "book"), ports: map[string]int{keylime.Verifier: 8881, keylime.Registrar: 8891}, programs: map[string]string{}}
	h.installer = &Installer{}
	h.append("etc/passwd", "keylime:x:4711:4712::/var/lib/keylime:/bin/false\n")
	h.append("etc/group", "keylime:x:4712:\n")
	h.mkdir("var/lib/keylime")
	h.chown("var/lib/keylime", serviceUID)
	h.must(os.Mkdir("/run/keylime", 0o700)) // of its tmpfiles.d; else it takes a folder in /tmp
	h.chown("run/keylime", serviceUID)
	for _, name := range []string{"verifier", "registrar", "tenant", "logging", "ca"} {
		text, err := os.ReadFile(python + "/share/keylime/" + name + ".conf")
		h.must(err)
		h.write("etc/keylime/"+name+".conf", string(text), 0o444)
	}
	for _, name := range []string{"keylime_verifier", "keylime_registrar", "keylime_tenant", "python"} {
		h.programs[name] = python + "/bin/" + name
	}
	return h
}

func (h *host) append(name, text string) {
	h.t.Helper()
	file, err := os.OpenFile(h.path(name), os.O_WRONLY|os.O_APPEND, 0)
	h.must(err)
	_, err = io.WriteString(file, text)
	h.must(err)
	h.must(file.Close())
}

// keylimeItems is the set of the seed's first host, with Keylime's own commands.
func (h *host) keylimeItems() []Item {
	items := h.all()
	for at := range items {
		program := map[string]string{keylime.Verifier: "verifier", keylime.Registrar: "registrar"}[items[at].Profile]
		if program == "" {
			continue
		}
		items[at].Service = Service{Start: []string{h.programs["keylime_"+program]}, Log: "/var/log/keylime-" + program + ".log"}
	}
	return items
}

// tellLogs shows the services' own words when a test has failed.
func (h *host) tellLogs() {
	for _, name := range []string{"verifier", "registrar"} {
		if text, err := os.ReadFile("/var/log/keylime-" + name + ".log"); err == nil && h.t.Failed() {
			h.t.Logf("%s:\n%s", name, text[max(0, len(text)-3000):])
		}
	}
}

func (h *host) checkVerified(items []Item) {
	h.t.Helper()
	for _, finding := range h.installer.Verify(h.t.Context(), items) {
		if finding.Err != nil {
			h.t.Errorf("%s: %s: %v", finding.Certificate, finding.Check, finding.Err)
		}
	}
	for _, profile := range []string{keylime.Verifier, keylime.Registrar} {
		if h.servedSerial(profile) != h.installedSerial(strings.TrimPrefix(profile, "keylime-")) {
			h.t.Errorf("%s does not serve what is installed", profile)
		}
	}
}

// checkTenant lets Keylime's own client talk to both services.
func (h *host) checkTenant() {
	h.t.Helper()
	for _, command := range []string{"cvlist", "reglist"} {
		output, err := exec.Command(h.programs["keylime_tenant"], "-c", command, "-v", "127.0.0.1", "-vp", "8881", "-r", "127.0.0.1", "-rp", "8891").CombinedOutput()
		if err != nil || !strings.Contains(string(output), `"uuids": []`) {
			h.t.Errorf("keylime_tenant -c %s: %v\n%s", command, err, output)
		}
	}
}

// checkOptions asks Keylime's own parser, as the service user, what it reads.
func (h *host) checkOptions() {
	h.t.Helper()
	const ask = `
from keylime import config, web_util
for component, client in (("verifier", False), ("verifier", True), ("registrar", False), ("tenant", True)):
    (cert, key, ca, password), verify = web_util.get_tls_options(component, is_client=client)
    open(key).close()
    print("=", component, client, cert, key, ca, password, verify)
for component in ("verifier", "tenant"):
    print("=", component, config.getboolean(component, "enable_agent_mtls"))
`
	command := exec.Command(h.programs["python"], "-c", ask)
	command.Env = []string{"PATH=/usr/bin:/bin"}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: serviceUID, Gid: 4712}}
	output, err := command.Output()
	const want = `verifier False /etc/keylime/certs/verifier.crt /etc/keylime/certs/verifier.key ['/etc/keylime/certs/clients-ca.crt'] None True
verifier True /etc/keylime/certs/verifier-client.crt /etc/keylime/certs/verifier-client.key ['/etc/keylime/certs/ca.crt'] None True
registrar False /etc/keylime/certs/registrar.crt /etc/keylime/certs/registrar.key ['/etc/keylime/certs/clients-ca.crt'] None True
tenant True /etc/keylime/certs/tenant.crt /etc/keylime/certs/tenant.key ['/etc/keylime/certs/ca.crt'] None True
verifier True
tenant True
`
	got := ""
	for line := range strings.Lines(string(output)) { // its log goes there too
		if said, isAnswer := strings.CutPrefix(line, "= "); isAnswer {
			got += said
		}
	}
	if err != nil || got != want {
		h.t.Errorf("Keylime reads (%v):\n%s", err, output)
	}
}

func TestKeylime(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newKeylimeHost(t)
	defer h.tellLogs()
	for range 2 {
		began := time.Now()
		h.must(h.renew(h.keylimeItems()...))
		t.Logf("renewed in %s", time.Since(began).Round(time.Millisecond))
		h.checkVerified(h.keylimeItems())
		h.checkTenant()
	}
	h.checkRefusals()
	h.checkOptions()
	if n := h.keylimeProcesses("keylime_verifier"); n == 0 {
		t.Error("no verifier in the process list")
	}
}

// keylimeProcesses counts the living processes whose command line names one.
func (h *host) keylimeProcesses(name string) int {
	h.t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	h.must(err)
	count := 0
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), name) {
			count++
		}
	}
	return count
}

// TestKeylimeThatWillNotStart gives the verifier a main file it cannot use.
func TestKeylimeThatWillNotStart(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newKeylimeHost(t)
	h.must(h.renew(h.keylimeItems()...))
	verifier := h.installedSerial("verifier")
	good := h.read("etc/keylime/verifier.conf")
	h.write("etc/keylime/verifier.conf", strings.Replace(good, "\ndatabase_url = ", "\ndatabase_url = no:", 1), 0o444)
	err := h.renew(h.keylimeItems()...)
	if err == nil {
		t.Fatal("accepted")
	}
	t.Log(err)
	if h.installedSerial("verifier") != verifier {
		t.Error("not rolled back")
	}
	h.write("etc/keylime/verifier.conf", good, 0o444)
	h.must(h.renew(h.keylimeItems()...))
	h.checkVerified(h.keylimeItems())
}

// edit changes settings of a main file as the manual set-up did, with a remark
// behind each value, and keeps a backup beside it.
func (h *host) edit(component string, settings [][2]string) {
	h.t.Helper()
	name := "etc/keylime/" + component + ".conf"
	text := h.read(name)
	h.write(name+".backup-20260210", text, 0o444)
	for _, setting := range settings {
		line := regexp.MustCompile(`(?m)^` + setting[0] + ` = (.*)$`)
		if !line.MatchString(text) {
			h.t.Fatalf("%s has no %s", name, setting[0])
		}
		text = line.ReplaceAllString(text, fmt.Sprintf("%s = %-22s # Changed from: $1", setting[0], setting[1]))
	}
	h.write(name, text, 0o444)
}

// TestKeylimeSetUpByHand starts where people stand who did it by hand: services
// of root, started in a shell, running with the configuration from before; main
// files with remarks behind the values; a CA file without its root.
func TestKeylimeSetUpByHand(t *testing.T) {
	if !cell.Enter(t) {
		return
	}
	h := newKeylimeHost(t)
	defer h.tellLogs()
	h.chown("var/lib/keylime", 0)
	h.chown("run/keylime", 0)
	h.startByHand("verifier") // it makes the CA that the registrar's default settings want
	h.await("8881")
	h.startByHand("registrar")
	h.await("8891")
	h.edit("verifier", [][2]string{
		{"enable_agent_mtls", "True"}, {"tls_dir", "/etc/keylime/certs"}, {"server_key", "verifier.key"}, {"server_cert", "verifier.crt"},
		{"client_key", "verifier.key"}, {"client_cert", "verifier.crt"}, {"trusted_client_ca", "ca.crt"}, {"trusted_server_ca", "ca.crt"},
	})
	h.edit("registrar", [][2]string{
		{"tls_dir", "/etc/keylime/certs"}, {"server_key", "registrar.key"}, {"server_cert", "registrar.crt"}, {"trusted_client_ca", "ca.crt"},
	})
	h.byHand()
	files := h.contents("etc/keylime/certs")

	h.must(h.renew(h.keylimeItems()...))
	h.checkAdopted(files)
	h.checkVerified(h.keylimeItems())
	h.checkTenant()
	if _, uid := h.mode(certs + "/verifier.key"); uid != 0 {
		t.Errorf("the key belongs to %d, the verifier runs as root", uid)
	}
	if log := h.read("var/log/keylime-verifier.log"); !strings.HasPrefix(log, "started by hand") {
		t.Error("the log was replaced")
	}
}

// startByHand is: nohup keylime_verifier > /var/log/keylime-verifier.log 2>&1 &
func (h *host) startByHand(program string) {
	h.t.Helper()
	log, err := os.OpenFile("/var/log/keylime-"+program+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	h.must(err)
	defer log.Close()
	_, err = io.WriteString(log, "started by hand\n")
	h.must(err)
	command := exec.Command("/usr/bin/nohup", h.programs["keylime_"+program])
	command.Stdout, command.Stderr = log, log
	h.must(command.Start())
	go func() { _ = command.Wait() }() // reaped whenever it ends
}

func (h *host) await(port string) {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			h.tellLogs()
			h.t.Fatal(err)
		}
	}
}
